"""How a process ended, in words."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

_WANT_OF_MEMORY: Final = " (by somebody, or by the kernel for want of memory)"


def ended(status: int) -> str:
    """Of an exit status, negative for a signal: "exit code 3", "killed by SIGSEGV"."""
    if status >= 0:
        return f"exit code {status}"
    with suppress(ValueError):
        name = signal.Signals(-status).name
        return f"killed by {name}{_WANT_OF_MEMORY if name == 'SIGKILL' else ''}"
    return f"killed by signal {-status}"


def quoted(lines: Sequence[str]) -> str:
    """The last lines that a process wrote, to go behind a sentence; nothing if there are none."""
    return "".join(["\nIts last lines:", *(f"\n  {line}" for line in lines)]) if lines else ""
