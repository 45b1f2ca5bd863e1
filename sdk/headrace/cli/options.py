"""Options that several commands share, and where the server is if nobody says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from headrace_broker.locate import DEFAULT_URL, EMBEDDED, is_guarded, runs_in

from . import completing

DEV_DIRECTORY: Final = ".headrace"
"""Where `headrace dev` keeps its data, in the directory it is called in."""

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Server: redis://, rediss://, unix:// or embedded://DIR. Else HEADRACE_URL; else the server of a "
        f"`headrace dev` that runs in this directory; else {DEFAULT_URL}.",
        show_default=False,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", help="Namespace; else HEADRACE_NAMESPACE; else `headrace`.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Actor = Annotated[str, typer.Option("--actor", help="Who asks; goes into the history.")]
InstanceId = Annotated[
    str, typer.Argument(metavar="ID", help="The instance's id.", autocompletion=completing.instance_ids)
]


def server_url(given: str | None) -> str:
    """The URL to use: as given, from the environment, of the `dev` that runs here, or the local default."""
    return given or os.environ.get("HEADRACE_URL") or dev_url() or DEFAULT_URL


def dev_url() -> str | None:
    """The URL of the embedded server of a `headrace dev` in this directory, if either of them runs."""
    directory = Path(DEV_DIRECTORY)
    return f"{EMBEDDED}{DEV_DIRECTORY}" if runs_in(directory) or is_guarded(directory) else None
