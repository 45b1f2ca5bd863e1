"""The history of an instance as lines for people: when, what, where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from headrace_broker.durations import format_duration

from .output import console, local_time

if TYPE_CHECKING:
    from headrace_broker.queries import HistoryEvent
    from headrace_broker.snapshots import Snapshot

_BAD: Final = frozenset(("attempt_failed", "redelivered", "signal_timed_out", "blocked"))
_QUIET: Final = frozenset(("dispatched", "timer_started", "signal_received"))
_WHEN: Final = 12
_WHAT: Final = 16
_WHERE: Final = 16
"""Widths of the columns of a timeline that comes line by line."""


def print_timeline(snapshot: Snapshot, history: Sequence[HistoryEvent]) -> None:
    """A row per fact: time since the creation, what, where, and what matters about it."""
    from rich.table import Table
    from rich.text import Text

    table = Table("when", "what", "where", "", box=None, pad_edge=False, header_style="bold")
    for column in table.columns[:3]:
        column.no_wrap = True
    table.columns[0].justify = "right"
    table.columns[3].overflow = "fold"
    for event in history:
        style = _style(event)
        what = Text(_words(event), style=style)
        table.add_row(since(snapshot.created, event.at), what, event.node or "", Text(details(event), style=style))
    if history:
        console().print()
        console().print(table)


def print_event(start: datetime, event: HistoryEvent) -> None:
    """The same for one fact, of which nobody knows yet how wide those after it will be."""
    from rich.text import Text

    line = Text(f"{since(start, event.at):>{_WHEN}}  ").append(f"{_words(event):<{_WHAT}}", _style(event))
    line.append(f"  {event.node or '':<{_WHERE}}").append(f"  {details(event)}", _style(event))
    line.rstrip()
    console().print(line)


def _words(event: HistoryEvent) -> str:
    return event.kind.replace("_", " ")


def _style(event: HistoryEvent) -> str:
    return "red" if event.kind in _BAD else "dim" if event.kind in _QUIET else ""


def since(start: datetime, at: datetime) -> str:
    """Time since the start: "+1.250 s". What the clocks of two servers put before it is at the start."""
    seconds = max(0.0, (at - start).total_seconds())
    return f"{seconds:+.3f} s" if seconds < 60 else f"+{format_duration(int(seconds * 1000))}"


def details(event: HistoryEvent) -> str:
    """What a fact's line ends with: the fields that a reader needs, in words where that is shorter."""
    fields = event.fields
    parts: list[str] = []
    if "attempt" in fields and (event.kind != "dispatched" or fields["attempt"] != 1):
        parts.append(f"attempt {fields['attempt']}")
    parts += _specific(event.kind, fields)
    if isinstance(fields.get("frame"), int) and fields["frame"] > 0:
        parts.append(f"branch {fields.get('branch')}")
    return ", ".join(part for part in parts if part)


def _specific(kind: str, fields: Mapping[str, Any]) -> list[str]:
    match kind:
        case "started":
            return [f"flow {fields.get('flow')}", f"by {fields['actor']}" if fields.get("actor") else ""]
        case "completed":
            return [f"took {format_duration(_number(fields.get('duration_ms')))}", f"on {fields.get('worker') or '?'}"]
        case "attempt_failed":
            outcome = str(fields.get("outcome", "failed")).replace("_", " ")
            return [outcome if outcome != "failed" else "", _error(fields)]
        case "redelivered":
            return [f"{str(fields.get('cause', '')).replace('_', ' ')}", f"losses {fields.get('losses', 0)}"]
        case "retry_scheduled" | "timer_started" | "signal_awaited":
            from headrace_broker.snapshots import moment  # late: it brings redis-py, and help needs none

            due = _number(fields.get("due"))
            return [str(fields.get("signal", "")), f"due {local_time(moment(due), 'milliseconds')}" if due else ""]
        case "routed":
            return [f"to {fields.get('key')}"]
        case "unblocked":
            skipped = "the event that blocked it was left out" if fields.get("skipped") else ""
            return [
                f"by {fields['actor']}" if fields.get("actor") else "",
                f"{fields.get('parked', 0)} parked",
                skipped,
            ]
        case "ended" | "blocked":
            return [str(fields.get("status", "")), str(fields.get("reason", "")), _error(fields)]
        case _:
            shown = ("signal", "actor", "reason")
            return [str(fields[name]) for name in shown if fields.get(name)]


def _error(fields: Mapping[str, Any]) -> str:
    if not fields.get("type"):
        return str(fields.get("message") or "")
    return f"{fields['type']}: {fields.get('message') or ''}"


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
