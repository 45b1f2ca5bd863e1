"""The command line. `main` is light: a command imports what it needs when it runs."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and ends the process with its exit code (see `exits`)."""
    from .running import run

    raise SystemExit(run(arguments))
