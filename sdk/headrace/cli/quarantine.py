"""`quarantine ls`, `show`, `retry`, `drop`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from headrace_broker.errors import ConfigurationError, HeadraceError, ServerUnreachable

from .connecting import with_client
from .exits import FAILED
from .options import AsJson, Namespace, Url
from .output import age, console, local_time, note, print_json

if TYPE_CHECKING:
    from headrace.client import Client
    from headrace_broker.quarantine import Quarantined, QuarantinePage

_PAGE: Final = 500
_SHOWN: Final = 2000
"""Characters of a field that `show` prints; --json has all."""

group = typer.Typer(
    name="quarantine", help="Entries that could not be read or applied.", no_args_is_help=True, rich_markup_mode=None
)

EntryId = Annotated[str, typer.Argument(metavar="ENTRY", help="As `quarantine ls` names it.")]
EntryIds = Annotated[
    list[str] | None, typer.Argument(metavar="ENTRY", help="As `quarantine ls` names them.", show_default=False)
]
Every = Annotated[bool, typer.Option("--all", help="All entries that are there now.")]


@group.command()
def ls(
    limit: Annotated[int, typer.Option("--limit", help="At most so many, up to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Go on after the page that gave it.")] = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """List what is in quarantine, newest first."""
    page = with_client(url, namespace, lambda client: _page(client, limit, cursor))
    if as_json:
        print_json({"items": [_plain(item) for item in page.items], "cursor": page.cursor})
        return
    if not page.items:
        note("nothing is in quarantine")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("ENTRY", "AGE", "SOURCE", "INSTANCE"):
        table.add_column(title, no_wrap=True, overflow="fold")
    table.add_column("REASON", overflow="fold")
    for item in page.items:
        table.add_row(item.id, age(item.at), item.source, item.instance, item.reason)
    console().print(table)
    if page.cursor is not None:
        note(f"there may be more: --cursor {page.cursor}")


@group.command()
def show(id: EntryId, url: Url = None, namespace: Namespace = None, as_json: AsJson = False) -> None:
    """Show an entry: why it is there, what it says, and its fields as they came."""
    item = with_client(url, namespace, lambda client: _read(client, id))
    if as_json:
        print_json(_plain(item))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    obstacle = item.obstacle()
    rows = {
        "entry": item.id,
        "since": f"{local_time(item.at)} ({age(item.at)} ago)",
        "source": f"{item.source} {item.source_entry}".strip(),
        "instance": item.instance,
        "reason": item.reason,
        "retry": f"headrace quarantine retry {item.id}" if obstacle is None else f"not possible: {obstacle}",
        **_message(item),
        **{f"field {_text(name)}": _text(value)[:_SHOWN] for name, value in item.raw.items()},
    }
    for name, value in rows.items():
        if value:
            table.add_row(Text(name), Text(str(value)))
    console().print(table)


@group.command()
def retry(
    ids: EntryIds = None, every: Every = False, url: Url = None, namespace: Namespace = None, as_json: AsJson = False
) -> None:
    """Put entries back to where they came from, to be tried again."""
    _check(ids, every)
    from headrace_broker.quarantine import RetryRequest

    async def put_back(client: Client, item: Quarantined) -> None:
        await client.session.ask(RetryRequest(item).hold, f"retry entry {item.id}")

    done, refused = with_client(url, namespace, lambda client: _each(client, ids, put_back))
    _report("retried", done, refused, as_json)


@group.command()
def drop(
    ids: EntryIds = None,
    every: Every = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Delete entries for good."""
    _check(ids, every)
    from headrace_broker.quarantine import drop_quarantined

    if not yes:
        if not sys.stdin.isatty():
            raise ConfigurationError("What is dropped is gone for good: say --yes, for there is nobody here to ask.")
        typer.confirm(f"Drop {'all entries' if ids is None else ', '.join(ids)} for good?", abort=True, err=True)

    async def delete(client: Client, item: Quarantined) -> None:
        await client.session.ask(lambda space: drop_quarantined(space, [item.id]), f"drop entry {item.id}")

    done, refused = with_client(url, namespace, lambda client: _each(client, ids, delete))
    _report("dropped", done, refused, as_json)


def _check(ids: Sequence[str] | None, every: bool) -> None:
    if bool(ids) == every:
        raise ConfigurationError("Which entries? Name them, or say --all.")


async def _each(
    client: Client, ids: Sequence[str] | None, act: Callable[[Client, Quarantined], Awaitable[None]]
) -> tuple[list[str], dict[str, str]]:
    """What was done, and why the rest was not. With one entry named, what is in its way is raised."""
    if ids is not None and len(ids) == 1:
        await act(client, await _read(client, ids[0]))
        return [ids[0]], {}
    done: list[str] = []
    refused: dict[str, str] = {}

    async def attempt(id: str) -> None:
        try:
            await act(client, await _read(client, id))
            done.append(id)
        except (ConfigurationError, ServerUnreachable):
            raise
        except HeadraceError as error:
            refused[id] = str(error)

    if ids is not None:
        for id in ids:
            await attempt(id)
        return done, refused
    for id in reversed(await _all_ids(client)):  # oldest first: signals are taken in the order they are put back
        await attempt(id)
    return done, refused


async def _all_ids(client: Client) -> list[str]:
    """Newest first."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = await _page(client, _PAGE, cursor)
        ids += [item.id for item in page.items]
        cursor = page.cursor
        if cursor is None:
            return ids


def _report(verb: str, done: Sequence[str], refused: Mapping[str, str], as_json: bool) -> None:
    if as_json:
        print_json({verb: done, "refused": refused})
    else:
        for id in done:
            print(f"{verb} {id}", flush=True)
        for reason in refused.values():
            note(reason)
        if not done and not refused:
            note("nothing is in quarantine")
    if refused:
        raise typer.Exit(FAILED)


async def _page(client: Client, limit: int, cursor: str | None) -> QuarantinePage:
    from headrace_broker.quarantine import list_quarantine

    return await client.session.ask(
        lambda space: list_quarantine(space, limit=limit, cursor=cursor), "list the quarantine"
    )


async def _read(client: Client, id: str) -> Quarantined:
    from headrace_broker.quarantine import read_quarantined

    return await client.session.ask(lambda space: read_quarantined(space, id), f"read entry {id}")


def _message(item: Quarantined) -> dict[str, str]:
    """Its message by field, as far as it can be read."""
    message = item.message()
    if message is None:
        return {"message": "cannot be read"}
    fields: Any = message._asdict()
    shown = {f"  {name}": _text(value)[:_SHOWN] for name, value in fields.items() if value not in ("", None)}
    return {"message": type(message).__name__, **shown}


def _plain(item: Quarantined) -> dict[str, Any]:
    message = item.message()
    return {
        "entry": item.id,
        "at": item.at,
        "source": item.source,
        "source_entry": item.source_entry,
        "instance": item.instance,
        "reason": item.reason,
        "parked": item.parked,
        "cut": item.cut,
        "obstacle": item.obstacle(),
        "message": None if message is None else {"kind": type(message).__name__, **message._asdict()},
        "raw": {_text(name): value for name, value in item.raw.items()},
    }


def _text(value: object) -> str:
    """Bytes as text where they are, else as Python writes them; nothing that a terminal would obey."""
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return repr(value)
        return text if text.isprintable() else repr(value)
    return str(value)


def add_to(app: typer.Typer) -> None:
    app.add_typer(group)
