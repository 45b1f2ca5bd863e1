"""The command line. `main` is light: a command imports what it needs when it runs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and ends the process with its exit code (see `exits`)."""
    try:
        from .running import run

        code = run(arguments)
    except KeyboardInterrupt:  # while the modules were loaded, or once more
        code = 130
    raise SystemExit(code)
