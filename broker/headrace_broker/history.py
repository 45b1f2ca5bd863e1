"""History: what happened to an instance, as packed chunks in a list; one chunk per commit, whole for a run.

A chunk is MessagePack `[version, [entry, …]]`; an entry is `[at, code, *fields]`. Nodes are indices into the run's
definition and frames are numbers, so an entry stays small (invariant 7); the client gives them names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from . import wire

VERSION: Final = 1

STARTED: Final = 1
DISPATCHED: Final = 2
COMPLETED: Final = 3
FAILED: Final = 4
RETRY_SCHEDULED: Final = 5
REDELIVERED: Final = 6
TIMER_STARTED: Final = 7
TIMER_FIRED: Final = 8
SIGNAL_RECEIVED: Final = 9
SIGNAL_AWAITED: Final = 10
SIGNAL_TAKEN: Final = 11
SIGNAL_TIMED_OUT: Final = 12
ROUTED: Final = 13
FORKED: Final = 14
BRANCH_COMPLETED: Final = 15
JOINED: Final = 16
CANCEL_REQUESTED: Final = 17
ENDED: Final = 18
BLOCKED: Final = 19
UNBLOCKED: Final = 20

FIELDS: Final[Mapping[int, tuple[str, tuple[str, ...]]]] = {
    STARTED: ("started", ("flow", "definition", "actor")),
    DISPATCHED: ("dispatched", ("node", "frame", "branch", "step", "attempt")),
    COMPLETED: ("completed", ("node", "frame", "branch", "step", "attempt", "began", "duration_ms", "worker")),
    FAILED: (
        "attempt_failed",
        ("node", "frame", "branch", "step", "attempt", "outcome", "type", "message", "traceback", "worker"),
    ),
    RETRY_SCHEDULED: ("retry_scheduled", ("node", "frame", "branch", "step", "attempt", "due")),
    REDELIVERED: ("redelivered", ("node", "frame", "branch", "step", "attempt", "losses", "cause")),
    TIMER_STARTED: ("timer_started", ("node", "frame", "branch", "due")),
    TIMER_FIRED: ("timer_fired", ("node", "frame", "branch")),
    SIGNAL_RECEIVED: ("signal_received", ("signal", "actor")),
    SIGNAL_AWAITED: ("signal_awaited", ("node", "frame", "branch", "signal", "due")),
    SIGNAL_TAKEN: ("signal_taken", ("node", "frame", "branch", "signal")),
    SIGNAL_TIMED_OUT: ("signal_timed_out", ("node", "frame", "branch", "signal")),
    ROUTED: ("routed", ("node", "frame", "branch", "key")),
    FORKED: ("forked", ("node", "frame", "branch", "forked_frame")),
    BRANCH_COMPLETED: ("branch_completed", ("node", "frame", "branch")),
    JOINED: ("joined", ("node", "frame", "branch", "joined_frame")),
    CANCEL_REQUESTED: ("cancel_requested", ("reason", "actor")),
    ENDED: ("ended", ("status", "type", "message")),
    BLOCKED: ("blocked", ("reason",)),
    UNBLOCKED: ("unblocked", ("actor", "parked", "skipped")),
}
"""Per code: the name that people see, and its fields in order. `frame` 0 is the top level; `branch` counts from 0."""


class Entry(NamedTuple):
    """One fact. `at` in milliseconds since the epoch, by the server's clock; `fields` as in `FIELDS`."""

    at: int
    code: int
    fields: tuple[Any, ...]

    @property
    def kind(self) -> str:
        return FIELDS[self.code][0] if self.code in FIELDS else f"unknown_{self.code}"

    def named(self) -> dict[str, Any]:
        """Its fields by name; a code from a newer release has them by position."""
        names = FIELDS[self.code][1] if self.code in FIELDS else ()
        return {names[i] if i < len(names) else f"field_{i}": value for i, value in enumerate(self.fields)}


def pack(entries: Sequence[Sequence[Any]]) -> bytes:
    """A chunk of entries, each `(at, code, *fields)`."""
    return wire.pack((VERSION, entries))


def unpack(chunk: bytes) -> list[Entry]:
    """Raises `MessageError` for bytes that are no chunk this version can read."""
    version, rows, *_ = wire.fields(wire.unpack(chunk), "a chunk of history", int, list)
    wire.version(version, VERSION, "A chunk of history")
    entries = [wire.fields(row, "an entry [at, code, …] of history", int, int) for row in rows]
    return [Entry(at, code, tuple(fields)) for at, code, *fields in entries]
