"""`demo`: the whole of Headrace on this machine, with kills. What it does is in `headrace.demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

DIRECTORY: Final = "headrace-demo"


def demo(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Send the approval at once.")] = False,
    directory: Annotated[
        Path, typer.Option("--dir", help="Where server, database and report lie; they stay.", file_okay=False)
    ] = Path(DIRECTORY),
    modules: Annotated[
        int | None, typer.Option("--modules", min=20, help="Only so many modules, evenly spread.", show_default=False)
    ] = None,
) -> int:
    """Run flows over Python's standard library while processes are killed; checks that nothing is lost."""
    from headrace.demo import run

    return run(directory, yes, modules)


def add_to(app: typer.Typer) -> None:
    app.command()(demo)
