"""From entries of the streams to items that can be applied, or to quarantined ones; and the cursors that they move."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, NamedTuple, cast

from headrace_broker import raw_signals, values
from headrace_broker.errors import HeadraceError, MessageError
from headrace_broker.ids import DispatchId, entry_key
from headrace_broker.instances import parse_timer_member
from headrace_broker.keys import PartitionKeys, partition_of
from headrace_broker.messages import (
    FIELD,
    INCARNATION_FIELD,
    CancelMessage,
    ContinueMessage,
    DeleteMessage,
    GarbageMessage,
    ResultMessage,
    SignalMessage,
    StartedMessage,
    StartMessage,
    TaskMessage,
    UnblockMessage,
    unpack,
)

from .engine.apply import Event, TimerFired

Source = Literal["events", "starts", "signals", "timers", "leases", "repair"]
"""Where an item came from. The first three have a cursor in `meta`."""

CURSORS: Final[tuple[Source, ...]] = ("events", "starts", "signals")
_LARGEST: Final = 2**64 - 1


class Doomed(NamedTuple):
    """Where an instance is found that somebody asked to be deleted. `status` is the one it ended with."""

    flow: str
    status: str


RawEntry = tuple[str, dict[bytes, bytes]]


@dataclass(slots=True)
class Item:
    """One thing to apply. `id` is its entry's id; `incarnation` None takes the newest.

    `event` None: nothing to apply, `reason` says why it is quarantined (None: just passed over). `raw` are the entry's
    fields. `stream` and `entry` name an entry of a task stream that goes, whatever the engine says; `member` a timer
    that does. `stale`: its event belongs to nobody any more; `dropped_keys` are that event's large values.
    `expiring_keys` are large values of a quarantined event: they stay as long as a result's would without a commit.
    `parked`: it is quarantined, and its instance keeps it too. `doomed`: nothing to apply, but something to delete.
    """

    source: Source
    id: str
    instance: str = ""
    incarnation: str | None = None
    event: Event | UnblockMessage | ContinueMessage | None = None
    reason: str | None = None
    raw: dict[bytes, bytes] | None = None
    stream: str | None = None
    entry: str | None = None
    member: bytes | None = None
    stale: bool = False
    dropped_keys: Sequence[str] = ()
    expiring_keys: Sequence[str] = ()
    parked: bool = False
    doomed: Doomed | None = None


def entries(reply: object) -> list[tuple[bytes, list[RawEntry]]]:
    """The streams and entries in a reply of XREAD; none for a nil reply."""
    if reply is None:
        return []
    found: list[tuple[bytes, list[RawEntry]]] = []
    for stream, rows in cast("list[tuple[bytes, list[Any]]]", reply):
        parsed: list[RawEntry] = []
        for id, fields in rows:
            parsed.append((id.decode(), dict(zip(fields[::2], fields[1::2], strict=False)) if fields else {}))
        found.append((stream, parsed))
    return found


def read_events(rows: Iterable[RawEntry], keys: PartitionKeys) -> list[Item]:
    return [_guarded("events", id, fields, partial(_event, keys)) for id, fields in rows]


def read_starts(rows: Iterable[RawEntry], keys: PartitionKeys) -> list[Item]:
    return [_guarded("starts", id, fields, partial(_start, keys)) for id, fields in rows]


def read_signals(rows: Iterable[RawEntry], partition: int, partitions: int) -> list[Item]:
    """Raw signals that hash to `partition`; those of others are passed over, unreadable ones belong to partition 0."""
    items: list[Item] = []
    for id, fields in rows:
        name = fields.get(b"instance")
        try:
            instance = name.decode() if name else ""
        except UnicodeDecodeError:
            instance = ""
        home = partition_of(instance, partitions) if instance else 0
        if home == partition:
            items.append(_guarded("signals", id, fields, _raw_signal))
        else:
            items.append(Item("signals", id))
    return items


def read_timers(members: Iterable[bytes]) -> list[Item]:
    items: list[Item] = []
    for member in members:
        try:
            incarnation, token, number, instance = parse_timer_member(member)
        except MessageError as error:
            items.append(Item("timers", "", reason=str(error), raw={b"timer": member}, member=member))
            continue
        event = TimerFired(token, number)
        items.append(Item("timers", "", instance, incarnation, event, raw={b"timer": member}, member=member))
    return items


def read_loss(stream: str, entry: str, fields: dict[bytes, bytes], consumer: str) -> Item:
    """A task entry whose lease ran out."""

    def parse(id: str, fields: dict[bytes, bytes]) -> Item:
        task = unpack(fields[FIELD])
        if not isinstance(task, TaskMessage):
            raise MessageError(f"Expected a task, got {type(task).__name__}.")
        event = ResultMessage(task.instance, task.incarnation, task.dispatch, task.token, "lost", worker=consumer)
        return Item("leases", id, task.instance, task.incarnation, event)

    item = _guarded("leases", entry, fields, parse)
    item.stream, item.entry = stream, entry
    return item


def _guarded(
    source: Source, id: str, fields: dict[bytes, bytes], parse: Callable[[str, dict[bytes, bytes]], Item]
) -> Item:
    try:
        item = parse(id, fields)
        if item.raw is None:
            item.raw = fields
        return item
    except KeyError as error:
        reason = f"The entry has no field {error}."
    except (HeadraceError, UnicodeDecodeError) as error:
        reason = str(error)
    return Item(source, id, reason=reason, raw=fields)


def _event(keys: PartitionKeys, id: str, fields: dict[bytes, bytes]) -> Item:
    message = unpack(fields[FIELD])
    match message:
        case ResultMessage() | StartedMessage():
            DispatchId.parse(message.dispatch)
            if isinstance(message, ResultMessage) and message.outcome == "completed" and message.value is None:
                raise MessageError("A completed result carries a value.")
            if isinstance(message, ResultMessage) and message.value is not None:
                values.check_references(message.value, keys.values(message.incarnation))
            return Item("events", id, message.instance, message.incarnation, message)
        case ContinueMessage():
            return Item("events", id, message.instance, message.incarnation, message)
        case SignalMessage() | CancelMessage() | UnblockMessage():
            incarnation = fields[INCARNATION_FIELD].decode()
            if isinstance(message, SignalMessage):
                values.check_references(message.value, keys.values(incarnation))
            return Item("events", id, message.instance, incarnation, message)
        case DeleteMessage():
            return Item("events", id, doomed=Doomed(fields[b"flow"].decode(), fields[b"status"].decode()))
        case GarbageMessage():
            raw = {b"stream": message.stream.encode(), b"entry": message.entry.encode(), b"raw": message.raw}
            return Item("events", id, reason=message.reason, raw=raw)
        case _:
            raise MessageError(f"A {type(message).__name__} does not belong in events.")


def _start(keys: PartitionKeys, id: str, fields: dict[bytes, bytes]) -> Item:
    message = unpack(fields[FIELD])
    if not isinstance(message, StartMessage):
        raise MessageError(f"A {type(message).__name__} does not belong in starts.")
    values.check_references(message.value, keys.values(message.incarnation))
    return Item("starts", id, message.instance, message.incarnation, message)


def _raw_signal(id: str, fields: dict[bytes, bytes]) -> Item:
    event = raw_signals.parse(fields)
    return Item("signals", id, event.instance, None, event)


def references(item: Item) -> list[str]:
    """The keys of the large values that the item's event brings along."""
    event = item.event
    value = event.value if isinstance(event, (ResultMessage, SignalMessage, StartMessage)) else None
    return values.large_keys(value)


def after(id: str) -> str:
    """The smallest id greater than `id`: what XTRIM MINID keeps from. Of the greatest id there is, that id."""
    milliseconds, number = entry_key(id)
    if number < _LARGEST:
        return f"{milliseconds}-{number + 1}"
    return f"{min(milliseconds + 1, _LARGEST)}-{0 if milliseconds < _LARGEST else _LARGEST}"
