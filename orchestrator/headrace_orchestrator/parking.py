"""Blocked instances: visible, and with every event that came meanwhile kept in order (invariant 9, ADR 4)."""

from __future__ import annotations

from typing import Final, NamedTuple

from headrace_broker import history, wire
from headrace_broker.instances import ENDED
from headrace_broker.messages import CancelMessage, SignalMessage

from .engine import apply as engine
from .engine.model import Context, Draft
from .engine.program import Program
from .inbox import Item, references

PARKED_LIMIT: Final = 10_000
"""Events kept for an instance; signals beyond are refused. Everything else is bounded by its tokens."""


class Problem(NamedTuple):
    """Why an instance cannot go on. `lacks_definition`: it goes on by itself once that can be loaded."""

    reason: str
    lacks_definition: bool = False


def block(draft: Draft, now: int, problem: Problem, *, guilty: bool = False) -> None:
    """Stops the instance until somebody unblocks it; what it has running may end, and its results are parked.

    `guilty`: the first parked event is why.
    """
    if draft.status in ENDED or draft.status == "blocked":
        return
    draft.header["status"] = "blocked"
    draft.header["guilty"] = "1" if guilty else ""
    draft.error = wire.pack([problem.reason])
    draft.lacks_definition = problem.lacks_definition
    draft.history.append((now, history.BLOCKED, problem.reason))


def park(draft: Draft, item: Item) -> None:
    """Keeps an event for later, as it came: MessagePack `[source, entry id, fields]`, and the large values it names.

    A signal beyond the limit is quarantined instead.
    """
    count = int(draft.header.get("parked") or draft.instance.header.get("parked") or 0)
    if count >= PARKED_LIMIT and isinstance(item.event, SignalMessage):
        item.reason = f"The instance is blocked, and {PARKED_LIMIT} events wait for it; that is the limit."
        item.expiring_keys = references(item)
        return
    draft.parked.append(wire.pack([item.source, item.id, item.raw or {}]))
    draft.header["parked"] = str(count + 1)
    draft.adopt += references(item)


def blame(draft: Draft, item: Item, now: int, reason: str) -> None:
    """The item could not be applied: it is quarantined, and waits at the head of what its instance parks."""
    item.reason = reason
    item.stale, item.dropped_keys = False, ()
    if draft.status not in ENDED and draft.status != "blocked" and item.event is not None:
        block(draft, now, Problem(reason), guilty=True)
        park(draft, item)
        item.parked = True
    else:
        item.expiring_keys = references(item)


def cancel(draft: Draft, event: CancelMessage, context: Context) -> None:
    """Ends a blocked instance at once, and what was parked for it. Needs none of its nodes: its definition may be
    missing, or what blocked it may be in them."""
    draft.lacks_definition = False
    draft.parked.clear()
    draft.unparked = 0
    engine.apply(draft, Program(draft.instance.flow, draft.instance.definition, 0, ()), event, context)
