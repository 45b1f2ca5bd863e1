"""`watch`: one instance until it ends, or all of them, as they change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from . import completing
from .connecting import with_client
from .exits import OK
from .options import Namespace, Url
from .output import console, print_json_line
from .timeline import print_event

if TYPE_CHECKING:
    from headrace.client import Client
    from headrace.handle import Handle
    from headrace_broker.snapshots import Snapshot

    from .overview import Sight

LOOK_SECONDS: Final = 1.0
NEWEST: Final = 20


def watch(
    id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="An instance's id; else all.", autocompletion=completing.instance_ids),
    ] = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> int:
    """Watch an instance until it ends, its outcome as the exit code; or all of them, until Ctrl-C."""
    if id is not None:
        with_client(url, namespace, lambda client: _watch_one(client, id, as_json))
    else:
        with contextlib.suppress(KeyboardInterrupt):  # there is no other end
            with_client(url, namespace, lambda client: _watch_all(client, as_json))
    return OK


async def _watch_one(client: Client, id: str, as_json: bool) -> None:
    """Raises what tells that the instance did not complete."""
    from headrace.handle import outcome_error

    from .views import print_result

    handle = client.handle(id)
    snapshot = await handle.get()
    async with contextlib.AsyncExitStack() as stack:
        if console().is_terminal and not as_json:
            await stack.enter_async_context(_status_line(handle, snapshot))
        events = await stack.enter_async_context(contextlib.aclosing(handle.events()))
        async for event in events:
            if as_json:
                print_json_line(event)
            else:
                print_event(snapshot.created, event)
    ended = await handle.get()
    if ended.status != "completed":
        raise outcome_error(ended)
    if not as_json:
        await print_result(client, ended)


@contextlib.asynccontextmanager
async def _status_line(handle: Handle[object], snapshot: Snapshot) -> AsyncGenerator[None]:
    """Keeps a line at the bottom: the status, what is waited for, and for how long it has been going on."""
    from .overview import in_words

    with console().status(in_words(snapshot)) as line:

        async def look() -> None:
            while True:
                line.update(in_words(await handle.get()))
                await asyncio.sleep(LOOK_SECONDS)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)  # who follows the events meets the same errors


async def _watch_all(client: Client, as_json: bool) -> None:
    from .overview import live_table, print_line, print_sight

    if not as_json and console().is_terminal:
        with live_table() as show:
            await _look(client, show, changes_only=False)
    else:
        await _look(client, print_sight if as_json else print_line, changes_only=True)


async def _look(client: Client, show: Callable[[Sight], None], *, changes_only: bool) -> None:
    """Shows what there is, again and again; a reader of lines wants those that say something new."""
    from headrace_broker.overview import read_overview

    from .overview import Sight

    before: Sight | None = None
    while True:
        overview = await client.session.ask(read_overview, "read the overview")
        page = await client.list(limit=NEWEST)
        sight = Sight(overview, page.items)
        if not changes_only or sight != before:
            show(sight)
        before = sight
        await asyncio.sleep(LOOK_SECONDS)


def add_to(app: typer.Typer) -> None:
    app.command()(watch)
