"""What a child writes to stderr: passed on to ours as it comes, and its end kept, to say of what the child died.

A thread does that, so that a terminal which is held up holds up the child that writes, as without us, and not the
keeper. It ends when nobody holds the pipe any more: a process that a task left behind may go on writing.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Final, Self

_READ: Final = 64 * 1024
_KEPT_BYTES: Final = 4096
_LINES: Final = 5
_LINE: Final = 300
_PATIENCE: Final = 0.2
"""How long to wait for what a dead child has written to be read: a process it left behind may hold the pipe."""
_STDERR: Final = 2


class Echo:
    """Give `descriptor` to a process as its stderr while this is open as a context manager; it is closed after."""

    def __init__(self) -> None:
        self._near, self.descriptor = os.pipe()
        self._tail = b""
        self._thread = threading.Thread(target=self._run, name="headrace-echo", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def last_lines(self) -> list[str]:
        """The last that was written, once the process is dead; a few lines, none of them long."""
        self._thread.join(_PATIENCE)
        lines = self._tail.decode(errors="replace").splitlines()
        return [line[:_LINE].rstrip() for line in lines if line.strip()][-_LINES:]

    def _run(self) -> None:
        try:
            while data := os.read(self._near, _READ):
                self._tail = (self._tail + data)[-_KEPT_BYTES:]
                with suppress(OSError):  # nobody reads ours
                    _write(data)
        finally:
            os.close(self._near)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(_STDERR, data) :]
