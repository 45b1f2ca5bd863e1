"""Signals of an instance: buffered from its start, first in first out per name, one wait takes one (DESIGN 7)."""

from __future__ import annotations

from headrace_broker import history, records
from headrace_broker.messages import SignalMessage
from headrace_broker.records import SignalQueue

from .turn import Turn


def receive(turn: Turn, message: SignalMessage) -> None:
    """Gives the payload to the token that has waited longest for the name, else buffers it."""
    draft = turn.draft
    name = message.name
    queue = draft.queue(name)
    slot = records.signal_slot(queue.next, name)
    turn.store(slot, message.value)
    turn.record(history.SIGNAL_RECEIVED, name, message.actor)
    queue = queue._replace(next=queue.next + 1)
    waiter, queue = _next_waiter(turn, name, queue)
    if waiter is None:
        draft.put(records.queue_field(name), queue)
        return
    draft.put(records.queue_field(name), queue._replace(first=queue.next))
    token = draft.token(waiter)
    if token is None:
        raise RuntimeError(f"token {waiter} waits for signal {name!r} and is not there")
    turn.node(token).kind.on_signal(turn, waiter, token, slot)


def take(turn: Turn, name: str) -> str | None:
    """The slot of the oldest buffered payload of that name, now taken; None if there is none."""
    queue = turn.draft.queue(name)
    if queue.first == queue.next:
        return None
    turn.draft.put(records.queue_field(name), queue._replace(first=queue.first + 1))
    return records.signal_slot(queue.first, name)


def wait(turn: Turn, id: int, name: str) -> int:
    """Queues a token behind those that wait for the name already; its place, for `leave`."""
    draft = turn.draft
    queue = draft.queue(name)
    draft.put(records.waiter_field(queue.next_waiter, name), id)
    draft.put(records.queue_field(name), queue._replace(next_waiter=queue.next_waiter + 1))
    return queue.next_waiter


def leave(turn: Turn, place: int, name: str) -> None:
    """Takes a waiter out of its place, which stays a hole."""
    turn.draft.remove(records.waiter_field(place, name))


def _next_waiter(turn: Turn, name: str, queue: SignalQueue) -> tuple[int | None, SignalQueue]:
    draft = turn.draft
    while queue.first_waiter < queue.next_waiter:
        field = records.waiter_field(queue.first_waiter, name)
        queue = queue._replace(first_waiter=queue.first_waiter + 1)
        waiter = draft.get(field, int)
        if waiter is not None:
            draft.remove(field)
            return waiter, queue
    return None, queue
