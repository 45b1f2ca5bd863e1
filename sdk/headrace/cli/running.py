"""Running a command: errors become one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from headrace_broker.errors import HeadraceError

from .app import app
from .exits import FAILED, INTERRUPTED, OK, USAGE, exit_code
from .interrupts import as_ctrl_c

# Newer typer brings its own copy of click, older ones use the package.
_USAGE_ERROR: type[Exception] = next(
    (kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"), typer.BadParameter
)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    try:
        with as_ctrl_c():
            code = app(args=None if arguments is None else list(arguments), prog_name="headrace", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # `headrace ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (HeadraceError, TimeoutError) as error:
        complain(str(error) or type(error).__name__, notes=getattr(error, "__notes__", ()))
        return exit_code(error)
    except _USAGE_ERROR as error:
        complain(_usage(error))
        return USAGE
    return code if isinstance(code, int) else OK


def complain(message: str, *, notes: Sequence[str] = ()) -> None:
    """`error: …` on stderr."""
    print(f"error: {message}", *notes, sep="\n", file=sys.stderr, flush=True)


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "headrace"
    message = str(error.format_message()).strip()
    if not message:  # no command was given: the help is out already
        return f"say what to do. See: {command} --help"
    return f"{message} See: {command} --help"


__all__ = ["FAILED", "complain", "run"]
