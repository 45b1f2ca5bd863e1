"""`unblock`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace_broker.errors import ConfigurationError, InstanceFinished, InstanceNotBlocked, InstanceNotFound

from .connecting import with_client
from .options import Actor, AsJson, Namespace, Url
from .output import note, print_json

if TYPE_CHECKING:
    from headrace.client import Client

_PAGE = 200


def unblock(
    id: Annotated[
        str | None, typer.Argument(metavar="ID", help="The instance's id; or use --all.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All blocked instances.")] = False,
    flow: Annotated[str | None, typer.Option("--flow", help="With --all: only of this flow.")] = None,
    skip: Annotated[bool, typer.Option("--skip", help="Leave out the event that blocked it.")] = False,
    actor: Actor = "",
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Let a blocked instance go on where it stopped."""
    if every == (id is not None):
        raise ConfigurationError("Which instance? Give an ID, or --all.")
    if flow is not None and not every:
        raise ConfigurationError("--flow goes with --all.")

    async def run(client: Client) -> list[str]:
        if id is None:
            return await _unblock_all(client, flow, skip, actor)
        await client.unblock(id, skip=skip, actor=actor)
        return [id]

    asked = with_client(url, namespace, run)
    if as_json:
        print_json({"unblock": asked})
        return
    for one in asked:
        print(f"unblock of {one} requested", flush=True)
    if not asked:
        note("no blocked instances")


async def _unblock_all(client: Client, flow: str | None, skip: bool, actor: str) -> list[str]:
    """Page by page; one that somebody else ended or unblocked meanwhile is left out."""
    asked: list[str] = []
    cursor: str | None = None
    while True:
        page = await client.list(status="blocked", flow=flow, limit=_PAGE, cursor=cursor)
        for item in page.items:
            try:
                await client.unblock(item.id, skip=skip, actor=actor)
            except (InstanceNotBlocked, InstanceNotFound, InstanceFinished):
                continue
            asked.append(item.id)
        cursor = page.cursor
        if cursor is None:
            return asked


def add_to(app: typer.Typer) -> None:
    app.command()(unblock)
