"""How an instance lies in Redis: header, index members, outputs. Read by clients, written by scripts and commits.

Header fields (hash `i:<id>`; all values are text):

| field | meaning |
| --- | --- |
| `inc` | incarnation |
| `flow`, `def` | flow name, definition hash |
| `status` | see `Status` |
| `created`, `ended` | ms since the epoch |
| `run` | run number, from 1 |
| `result` | slot of the final value, once completed |
| `error` | MessagePack `[type, message, traceback, node]`, once failed; `[reason]` once cancelled or blocked |
| `actor`, `trace` | who started it, `traceparent`; absent when empty |
| `parked` | how many events wait in `p:<inc>`, once it was blocked |
| `guilty` | "1" if the first of them is the event that blocked it |
"""

from __future__ import annotations

from typing import Final, Literal

from .errors import InstanceNotFound, MessageError
from .keys import RetainedClass

Status = Literal[
    "queued", "running", "waiting", "paused", "cancelling", "completed", "failed", "cancelled", "terminated", "blocked"
]
STATUSES: Final[tuple[Status, ...]] = (
    "queued",
    "running",
    "waiting",
    "paused",
    "cancelling",
    "completed",
    "failed",
    "cancelled",
    "terminated",
    "blocked",
)
ENDED: Final[frozenset[str]] = frozenset(("completed", "failed", "cancelled", "terminated"))
"""Statuses in which nothing more happens, and in which an id may be used again."""

INPUT_SLOT: Final = "in"


def retained_class(status: str) -> RetainedClass:
    """Which retention an ended instance falls under."""
    return "completed" if status in ("completed", "cancelled") else "failed"


def index_member(incarnation: str, instance: str) -> str:
    return f"{incarnation} {instance}"


def parse_index_member(member: bytes) -> tuple[str, str]:
    """(incarnation, instance). Raises `MessageError`."""
    incarnation, space, instance = member.decode(errors="replace").partition(" ")
    if not space:
        raise MessageError(f"Not a member of an index: {member!r}.")
    return incarnation, instance


def missing_member(definition: str, incarnation: str, instance: str) -> str:
    """In `missing`: in lexical order by definition."""
    return f"{definition} {incarnation} {instance}"


def parse_missing_member(member: bytes) -> tuple[str, str, str]:
    """(definition, incarnation, instance). Raises `MessageError`."""
    definition, _, rest = member.decode(errors="replace").partition(" ")
    return (definition, *parse_index_member(rest.encode()))


def timer_member(incarnation: str, token: int, number: int, instance: str) -> str:
    return f"{incarnation}:{token}:{number}:{instance}"


def parse_timer_member(member: bytes) -> tuple[str, int, int, str]:
    """(incarnation, token, timer number, instance). Raises `MessageError`."""
    try:
        incarnation, token, number, instance = member.decode().split(":", 3)
        return incarnation, int(token), int(number), instance
    except (ValueError, UnicodeDecodeError):
        raise MessageError(f"Not a timer: {member!r}.") from None


def unknown(instance: str) -> InstanceNotFound:
    """The error that tells that no instance has that id."""
    return InstanceNotFound(
        f"No instance of id {instance!r} is known. List those there are: headrace ls", instance=instance
    )
