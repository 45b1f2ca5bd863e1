"""A blocked instance goes on: what was parked for it is decided in its order, a part in each commit (ADR 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from headrace_broker import history, wire
from headrace_broker.connection import Command, Link, exchange, is_wrong_type, raise_error
from headrace_broker.errors import MessageError
from headrace_broker.instances import ENDED
from headrace_broker.keys import PartitionKeys
from headrace_broker.messages import ContinueMessage, UnblockMessage

from .engine.model import Draft, Instance
from .inbox import Item, read_events, read_loss, read_signals, read_starts, read_timers
from .parking import Problem, block

AT_ONCE: Final = 64
"""Parked events that one instance gets in one commit; at most."""
_IN_ALL: Final = 512

Resumption = UnblockMessage | ContinueMessage
RESUMPTIONS: Final[frozenset[type]] = frozenset((UnblockMessage, ContinueMessage))


@dataclass
class Backlog:
    """The head of an instance's parked list: `at_once` events for one commit, and one more, for one may be left out.

    `length` counts what is behind it too; `problem` says why it could not be read.
    """

    items: list[Item] = field(default_factory=list[Item])
    length: int = 0
    at_once: int = AT_ONCE
    problem: str | None = None


def read_backlogs(
    link: Link, keys: PartitionKeys, blocked: Sequence[Instance], at_once: int = AT_ONCE
) -> dict[str, Backlog]:
    """By incarnation, in one round trip; at most 512 events in all, but at least one of each."""
    if not blocked:
        return {}
    at_once = max(1, min(at_once, _IN_ALL // len(blocked)))
    commands: list[Command] = []
    for instance in blocked:
        key = keys.parked(instance.incarnation)
        commands += (("LRANGE", key, 0, at_once), ("LLEN", key))
    replies = exchange(link, commands)
    found: dict[str, Backlog] = {}
    for instance, rows, length in zip(blocked, replies[::2], replies[1::2], strict=True):
        if is_wrong_type(rows):
            backlog = Backlog(problem=f"What was parked for instance {instance.id!r} cannot be read: {rows}")
        else:
            items = [unpark(row, keys, instance) for row in cast("list[bytes]", raise_error(rows))]
            backlog = Backlog(items, raise_error(length), at_once)
        found[instance.incarnation] = backlog
    return found


def unpark(row: bytes, keys: PartitionKeys, instance: Instance) -> Item:
    """A parked event as it was when it came; one to quarantine if it is none, or another instance's."""
    try:
        source, id, fields, *_ = wire.fields(
            wire.unpack(row), "a parked event [source, entry id, fields]", str, str, dict
        )
        raw = _raw(fields)
        item = _read(source, id, raw, keys)
        if item.event is not None and (
            item.instance != instance.id or item.incarnation not in (None, instance.incarnation)
        ):
            raise MessageError(f"An event of {item.instance!r} was parked for {instance.id!r}.")
        return item
    except (MessageError, KeyError) as error:
        return Item("events", "", instance.id, reason=f"A parked event: {error}", raw={b"parked": row})


def _raw(fields: dict[Any, Any]) -> dict[bytes, bytes]:
    if not all(type(name) is bytes and type(value) is bytes for name, value in fields.items()):
        raise MessageError(f"Expected the fields of an entry; got {wire.shown(fields)}.")
    return fields


def _read(source: str, id: str, raw: dict[bytes, bytes], keys: PartitionKeys) -> Item:
    match source:
        case "events" | "repair":
            return read_events([(id, raw)], keys)[0]
        case "starts":
            return read_starts([(id, raw)], keys)[0]
        case "signals":
            return read_signals([(id, raw)], 0, 1)[0]
        case "timers":
            return read_timers([raw[b"timer"]])[0]
        case "leases":
            item = read_loss("", id, raw, "")
            item.stream = item.entry = None  # it was taken out of its stream when it was parked
            return item
        case _:
            raise MessageError(f"No events come from {source[:40]!r}.")


@dataclass
class Resume:
    """How one batch lets blocked instances go on. `decide` decides an event; `replayed` collects what was parked."""

    keys: PartitionKeys
    backlogs: dict[str, Backlog]
    now: int
    decide: Callable[[Draft, Item], None]
    replayed: list[Item] = field(default_factory=list[Item])

    def __call__(self, draft: Draft, event: Resumption, problem: Problem | None, blame: str | None) -> None:
        """Unblocks the draft and replays what was parked.

        It is blocked again for a `problem`, or for `blame`: then the first parked event is what could not be applied.
        What is left over goes on with a continuation; till then it stays blocked.
        """
        backlog = self.backlogs.get(draft.instance.incarnation)
        if draft.status != "blocked" or backlog is None or draft.unparked is not None:
            return  # it is not blocked any more, or has gone on in this batch already
        guilty = draft.instance.header.get("guilty") == "1"
        skipped = int(isinstance(event, UnblockMessage) and event.skip and guilty)
        if isinstance(event, UnblockMessage):
            draft.history.append((self.now, history.UNBLOCKED, event.actor, backlog.length, skipped))
        draft.unparked = skipped
        _unblock(draft)
        items = backlog.items[skipped:][: backlog.at_once]
        if backlog.problem is not None:
            problem = Problem(backlog.problem)
        if problem is not None:
            block(draft, self.now, problem, guilty=guilty and not skipped)
        elif blame is not None:
            block(draft, self.now, Problem(blame), guilty=bool(items))
            if items and not (guilty and not skipped):  # else it is in quarantine already
                items[0].reason, items[0].parked = blame, True
                self.replayed.append(items[0])
        else:
            draft.unparked += self._replay(draft, items)
            self._finish(draft, backlog.length - draft.unparked)
            return
        draft.header["parked"] = str(backlog.length - skipped + len(draft.parked))

    def _replay(self, draft: Draft, items: Iterable[Item]) -> int:
        """How many were decided; the end of the instance ends it."""
        count = 0
        for item in items:
            if draft.status in ENDED:
                break
            self.replayed.append(item)
            if item.reason is None:
                self.decide(draft, item)
            count += 1
        return count

    def _finish(self, draft: Draft, left: int) -> None:
        if left and draft.status not in ENDED:
            draft.header["status"] = "blocked"
            draft.header["parked"] = str(left + len(draft.parked))
            draft.continues = True
            return
        # What was parked earlier in this very batch is not in the list yet.
        rows, draft.parked = draft.parked, []
        left += len(rows) - self._replay(draft, [unpark(row, self.keys, draft.instance) for row in rows])
        draft.stale += left  # of an instance that has ended: they count no more
        draft.header["parked"] = "0"
        draft.error = draft.error or b""


def _unblock(draft: Draft) -> None:
    """The status that the tokens say; the engine keeps it from here on."""
    counters = draft.counters
    started = counters.steps > 1
    draft.header["status"] = ("running" if counters.active else "waiting") if started else "queued"
    draft.header["guilty"] = ""
    draft.lacks_definition = False
