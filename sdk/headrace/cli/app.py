"""The application: its own options, and the commands of `commands`."""

from __future__ import annotations

from typing import Annotated

import typer

from .commands import LazyGroup
from .exits import HELP

app = typer.Typer(
    name="headrace",
    cls=LazyGroup,
    help="Durable workflows on Redis.",
    epilog=HELP,
    add_completion=True,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        import headrace

        print(f"headrace {headrace.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    del version
    if context.invoked_subcommand is None:
        print(context.get_help())
