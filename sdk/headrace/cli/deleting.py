"""`delete`: one ended instance, or many of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from headrace_broker.errors import ConfigurationError, InstanceNotEnded, InstanceNotFound
from headrace_broker.instances import ENDED

from .connecting import with_client
from .options import AsJson, Namespace, Url
from .output import note, print_json
from .views import parse_time

if TYPE_CHECKING:
    from headrace.client import Client
    from headrace_broker.snapshots import Snapshot

_ENDED: Final = tuple(sorted(ENDED))
_PAGE: Final = 1000
_AT_ONCE: Final = 100
_FORCE_SECONDS: Final = 30.0


def delete(
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The instance's id.", show_default=False)] = None,
    flow: Annotated[str | None, typer.Option("--flow", help="All ended ones of this flow.")] = None,
    status: Annotated[str | None, typer.Option("--status", help=f"All of this: {', '.join(_ENDED)}.")] = None,
    before: Annotated[str | None, typer.Option("--before", help="All that ended before this time, ISO 8601.")] = None,
    force: Annotated[bool, typer.Option("--force", help="With ID: cancel it first if it is live.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Delete ended instances before their retention does: one by ID, or those of --flow, --status, --before."""
    many = (flow, status, before) != (None, None, None)
    if (id is None) == (not many):
        raise ConfigurationError("Say what to delete: an ID, or some of --flow, --status and --before; not both.")
    if id is not None:
        with_client(url, namespace, lambda client: _delete_one(client, id, force))
        print_json({"id": id, "delete": "requested"}) if as_json else print(f"delete of {id} requested", flush=True)
        return
    if force:
        raise ConfigurationError("--force goes with an ID: live instances are not deleted in bulk.")
    if status is not None and status not in ENDED:
        raise ConfigurationError(f"--status is one of {', '.join(_ENDED)}; got {status!r}. Live ones: headrace cancel")
    which = _Which(flow, _ENDED if status is None else (status,), parse_time("--before", before))
    if not yes:
        _confirm(with_client(url, namespace, which.count))
    deleted = with_client(url, namespace, lambda client: _delete_all(client, which))
    print_json({"deleted": deleted}) if as_json else print(f"delete of {deleted} instances requested", flush=True)


async def _delete_one(client: Client, id: str, force: bool) -> None:
    try:
        async with asyncio.timeout(_FORCE_SECONDS if force else None):
            await client.delete(id, force=force)
    except TimeoutError:
        raise TimeoutError(
            f"Instance {id!r} was asked to cancel, and has not ended after {_FORCE_SECONDS:.0f} s; it is not deleted. "
            "Does an orchestrator run? Then: headrace delete " + id
        ) from None


def _confirm(found: int) -> None:
    """Raises `ConfigurationError` if nobody can be asked, `typer.Exit` if the answer is no."""
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{found} instances would be deleted for good. Nobody is here to be asked: add --yes")
    if not found:
        return
    from rich.console import Console
    from rich.prompt import Confirm

    note(f"{found} instances will be deleted for good, with history and results.")
    if not Confirm.ask("Delete them?", console=Console(stderr=True), default=False):
        raise typer.Exit(1)


class _Which:
    """The ended instances of a flow (None: of any) in one of these statuses that ended before a time (None: ever)."""

    def __init__(self, flow: str | None, statuses: Sequence[str], before: datetime | None) -> None:
        self._flow = flow
        self._statuses = statuses
        self._before = None if before is None else before.astimezone()

    async def pages(self, client: Client) -> AsyncIterator[list[Snapshot]]:
        for status in self._statuses:
            wanted: Any = status
            cursor: str | None = None
            while True:
                page = await client.list(status=wanted, flow=self._flow, until=self._before, limit=_PAGE, cursor=cursor)
                yield [item for item in page.items if self._keeps(item)]
                cursor = page.cursor
                if cursor is None:
                    break

    def _keeps(self, item: Snapshot) -> bool:
        return item.has_ended and (self._before is None or (item.ended is not None and item.ended < self._before))

    async def count(self, client: Client) -> int:
        return sum([len(page) async for page in self.pages(client)])


async def _delete_all(client: Client, which: _Which) -> int:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("deleting"), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    deleted = 0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("deleting", total=None)
        async for page in which.pages(client):
            for start in range(0, len(page), _AT_ONCE):
                done = await asyncio.gather(*(_request(client, item) for item in page[start : start + _AT_ONCE]))
                deleted += sum(done)
                progress.update(bar, completed=deleted)
    return deleted


async def _request(client: Client, item: Snapshot) -> bool:
    """False if it went, or came back to life, since it was listed."""
    with suppress(InstanceNotFound, InstanceNotEnded):
        await client.delete(item.id, item.incarnation)
        return True
    return False


def add_to(app: typer.Typer) -> None:
    app.command()(delete)
