"""`ls` and `show`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace_broker.errors import ConfigurationError, HeadraceError
from headrace_broker.instances import STATUSES

from . import completing
from .connecting import with_client
from .options import AsJson, InstanceId, Namespace, Url
from .output import age, console, local_time, note, print_json, status_text
from .timeline import print_timeline

if TYPE_CHECKING:
    from headrace.client import Client
    from headrace_broker.listing import Page
    from headrace_broker.queries import HistoryEvent
    from headrace_broker.snapshots import Snapshot


def ls(
    status: Annotated[
        str | None,
        typer.Option("--status", help=f"One of {', '.join(STATUSES)}.", autocompletion=completing.statuses),
    ] = None,
    flow: Annotated[
        str | None, typer.Option("--flow", help="Only of this flow.", autocompletion=completing.flow_names)
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="Created at or after this time, ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Created at or before this time, ISO 8601.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="At most so many, up to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Go on after the page that gave it.")] = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """List instances, newest first."""
    wanted: Any = status
    bounds = {"since": parse_time("--since", since), "until": parse_time("--until", until)}
    page = with_client(
        url,
        namespace,
        lambda client: client.list(status=wanted, flow=flow, limit=limit, cursor=cursor, **bounds),
    )
    if as_json:
        print_json({"items": [summary(item) for item in page.items], "cursor": page.cursor})
    else:
        _print_page(page)


def show(id: InstanceId, url: Url = None, namespace: Namespace = None, as_json: AsJson = False) -> None:
    """Show an instance: status, what it waits for, timeline, attempts, errors, result."""

    async def read(client: Client) -> tuple[Snapshot, Sequence[HistoryEvent], Any]:
        handle = client.handle(id)
        snapshot = await handle.get()
        history, result = await asyncio.gather(handle.history(), _result(client, snapshot))
        return snapshot, history, result

    snapshot, history, result = with_client(url, namespace, read)
    if as_json:
        print_json({"instance": snapshot, "result": result, "history": history})
        return
    _print_instance(snapshot)
    if snapshot.status == "completed":
        _print_result(result)
    print_timeline(snapshot, history)


async def print_result(client: Client, snapshot: Snapshot) -> None:
    """What a completed instance returned."""
    _print_result(await _result(client, snapshot))


def _print_result(result: Any) -> None:
    console().print("result", style="bold")
    print_json(result)


async def _result(client: Client, snapshot: Snapshot) -> Any:
    if snapshot.status != "completed":
        return None
    try:
        return await client.handle(snapshot.id).result()
    except HeadraceError as error:  # it may be gone, or be nothing this release can read
        return f"({error})"


def _print_page(page: Page) -> None:
    from rich.table import Table

    if not page.items:
        note("no instances")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("ID", "FLOW", "STATUS", "CREATED", "AGE"):
        table.add_column(title, no_wrap=True, overflow="fold")
    for item in page.items:
        table.add_row(item.id, item.flow, status_text(item.status), local_time(item.created), age(item.created))
    if page.items:
        console().print(table)
    if page.cursor is not None:
        note(f"there may be more: --cursor {page.cursor}")


def _print_instance(snapshot: Snapshot) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("id", snapshot.id)
    table.add_row("flow", snapshot.flow)
    table.add_row("status", status_text(snapshot.status))
    table.add_row("created", f"{local_time(snapshot.created)} ({age(snapshot.created)} ago)")
    if snapshot.ended is not None:
        table.add_row("ended", f"{local_time(snapshot.ended)} (took {age(snapshot.created, snapshot.ended)})")
    if snapshot.actor:
        table.add_row("actor", snapshot.actor)
    for wait in (*snapshot.waiting_for, *snapshot.active):
        until = f", until {local_time(wait.until)}" if wait.until is not None else ""
        attempt = f", attempt {wait.attempt}" if wait.attempt else ""
        where = f" at {wait.node}" if wait.node != wait.name else ""
        table.add_row("waiting for" if wait.kind != "task" else "running", f"{wait}{where}{attempt}{until}")
    if snapshot.reason:
        table.add_row("reason", snapshot.reason)
    if snapshot.status == "blocked":
        table.add_row("parked", _parked(snapshot))
    if snapshot.error is not None:
        where = f" (at {snapshot.error.node})" if snapshot.error.node else ""
        table.add_row("error", f"{snapshot.error.type}: {snapshot.error.message}{where}", style="red")
        if snapshot.error.traceback:
            table.add_row("", snapshot.error.traceback.rstrip())
    console().print(table)


def _parked(snapshot: Snapshot) -> str:
    """What waits for a blocked instance, and how it goes on."""
    count = f"{snapshot.parked} event{'s' if snapshot.parked != 1 else ''}"
    if snapshot.guilty:
        count += ", the first of which could not be applied"
    return f"{count}; when the reason is mended: headrace unblock {quote(snapshot.id)}"


def summary(item: Snapshot) -> dict[str, Any]:
    """An instance in a list, for JSON."""
    return {
        "id": item.id,
        "incarnation": item.incarnation,
        "flow": item.flow,
        "status": item.status,
        "created": item.created,
        "ended": item.ended,
        "run": item.run,
    }


def parse_time(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{option} is a time such as 2026-01-31T12:00 (local) or 2026-01-31T12:00:00Z; got {text!r}."
        ) from None


def add_to(app: typer.Typer) -> None:
    app.command()(ls)
    app.command()(show)
