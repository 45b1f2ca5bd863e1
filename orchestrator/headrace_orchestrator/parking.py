"""Blocked instances: visible, and with every event that came meanwhile kept in order (invariant 9)."""

from __future__ import annotations

from headrace_broker import history, wire
from headrace_broker.instances import ENDED

from .engine.model import Draft
from .inbox import Item, references


def block(draft: Draft, now: int, reason: str) -> None:
    """Stops the instance until somebody unblocks it; what it has running may end, and its results are parked."""
    if draft.status in ENDED or draft.status == "blocked":
        return
    draft.header["status"] = "blocked"
    draft.error = wire.pack([reason])
    draft.history.append((now, history.BLOCKED, reason))


def park(draft: Draft, item: Item) -> None:
    """Keeps an event for later, as it came: MessagePack `[source, entry id, fields]`, and the large values it names."""
    draft.parked.append(wire.pack([item.source, item.id, item.raw or {}]))
    draft.adopt += references(item)
