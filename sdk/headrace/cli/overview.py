"""All instances at a glance, for people: a table that lives, or a line for each change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headrace_broker.snapshots import moment

from .output import age, console, local_time, print_json_line, status_text
from .views import summary

if TYPE_CHECKING:
    from headrace_broker.overview import Overview
    from headrace_broker.snapshots import Snapshot

ALWAYS_SHOWN: Final = ("queued", "running", "waiting", "completed", "failed")
_FEWEST: Final = 3
"""Rows, or waits, that are shown however small the terminal is."""


@dataclass(frozen=True)
class Sight:
    """The counts, and the newest instances."""

    overview: Overview
    newest: tuple[Snapshot, ...]


@contextlib.contextmanager
def live_table() -> Generator[Callable[[Sight], None]]:
    """Shows a sight in place of the one before; the last one stays."""
    with Live(console=console(), auto_refresh=False, vertical_overflow="crop") as live:
        yield lambda sight: live.update(_table(sight), refresh=True)


def print_line(sight: Sight) -> None:
    """One line: the time, counts by status, backlogs, workers."""
    overview = sight.overview
    counts = [f"{status} {count}" for status, count in _counts(overview)]
    queues = [f"{load.queue}={load.backlog}" for load in overview.queues]
    parts = [" ".join(counts), f"backlog {' '.join(queues) or 'none'}", f"workers {len(overview.workers)}"]
    console().print(f"{datetime.now():%H:%M:%S}", "  ".join(parts))


def print_sight(sight: Sight) -> None:
    """One line of JSON."""
    overview = sight.overview
    print_json_line(
        {
            "at": datetime.now(UTC),
            "statuses": overview.statuses,
            "flows": overview.flows,
            "more_flows": overview.more_flows,
            "queues": overview.queues,
            "workers": [{**worker._asdict(), "started": moment(worker.started)} for worker in overview.workers],
            "newest": [summary(item) for item in sight.newest],
        }
    )


def in_words(snapshot: Snapshot) -> Text:
    """An instance's status, and what it is at, in one line."""
    line = status_text(snapshot.status)
    waits = (*snapshot.waiting_for, *snapshot.active)
    for wait in waits[:_FEWEST]:
        line.append(f"  {wait}" + (f" until {local_time(wait.until)}" if wait.until is not None else ""))
    if len(waits) > _FEWEST:
        line.append(f"  and {len(waits) - _FEWEST} more")
    if snapshot.reason:
        line.append(f"  {snapshot.reason}")
    return line.append(f"  {age(snapshot.created)} since the start", "dim")


def _counts(overview: Overview) -> list[tuple[str, int]]:
    return [(status, count) for status, count in overview.statuses.items() if count or status in ALWAYS_SHOWN]


def _table(sight: Sight) -> RenderableType:
    """As high as the terminal: of long lists the first rows, and how many there are besides."""
    overview, height = sight.overview, console().height
    rows = max(_FEWEST, height // 6)
    parts: list[RenderableType] = [
        _status_row(overview),
        _flows(overview, rows),
        _queues(overview, rows),
        _workers(overview, rows),
    ]
    used = sum(len(console().render_lines(part, pad=False)) + 1 for part in parts)
    parts.append(_newest(sight.newest[: max(_FEWEST, height - used - 2)]))
    spaced = [one for part in parts for one in (part, Text())]
    return Group(*spaced[:-1])


def _status_row(overview: Overview) -> Text:
    row = Text()
    for status, count in _counts(overview):
        row.append_text(status_text(status)).append(f" {count}   ")
    return row.append(f"{datetime.now():%H:%M:%S}", "dim")


def _flows(overview: Overview, limit: int) -> Table:
    table = _plain("FLOW", "INSTANCES", right=(1,))
    most = sorted(overview.flows.items(), key=lambda item: -item[1])
    for flow, count in most[:limit]:
        table.add_row(flow, str(count))
    return _and_more(table, len(most) - limit + overview.more_flows)


def _queues(overview: Overview, limit: int) -> Table:
    table = _plain("QUEUE", "BACKLOG", "WORKERS", right=(1, 2))
    longest = sorted(overview.queues, key=lambda load: -load.backlog)
    for load in longest[:limit]:
        style = "red" if load.backlog and not load.workers else ""
        table.add_row(load.queue, str(load.backlog), str(load.workers), style=style)
    return _and_more(table, len(longest) - limit)


def _workers(overview: Overview, limit: int) -> Table:
    table = _plain("WORKER", "TASKS AT ONCE", "UP", "QUEUES", right=(1,))
    for worker in overview.workers[:limit]:
        slots = str(worker.processes * worker.concurrency)
        up = age(moment(worker.started))
        table.add_row(f"{worker.host}, pid {worker.pid}", slots, up, ", ".join(worker.streams))
    return _and_more(table, len(overview.workers) - limit)


def _newest(instances: tuple[Snapshot, ...]) -> Table:
    table = _plain("NEWEST", "FLOW", "STATUS", "AGE")
    for item in instances:
        table.add_row(item.id, item.flow, status_text(item.status), age(item.created))
    return table


def _plain(*titles: str, right: tuple[int, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, no_wrap=True, overflow="ellipsis", justify="right" if number in right else "left")
    return table


def _and_more(table: Table, count: int) -> Table:
    if count > 0:
        table.add_row(f"and {count} more", style="dim")
    return table
