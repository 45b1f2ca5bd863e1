"""Reading one instance: its header and state, its history, its values. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, cast

from . import history, records
from .connection import Command
from .conversations import Conversation, ask, ask_together
from .definitions import Definition
from .errors import InstanceNotFound, MessageError
from .ids import check_instance_id
from .keys import PartitionKeys
from .namespace import Namespace
from .registry import load_definition
from .snapshots import Snapshot, decode_header, moment, node_name, waits
from .workers import live_workers

_CHUNKS: Final = 256
"""Chunks of history per read; one chunk is one commit's entries of one instance."""


@dataclass(frozen=True)
class HistoryEvent:
    """One fact of an instance's history. `fields` depend on the kind (`history.FIELDS`), with nodes by name."""

    at: datetime
    kind: str
    node: str | None
    fields: Mapping[str, Any]


def read_header(namespace: Namespace, instance: str, incarnation: str | None = None) -> Conversation[Snapshot]:
    """The header of an id's newest incarnation, or of the one given; no state. Raises `InstanceNotFound`."""
    keys = namespace.of(check_instance_id(instance))
    (fields,) = yield from ask(("HGETALL", keys.header(instance)))
    if fields:
        snapshot = decode_header(instance, fields)
        if incarnation is None or snapshot.incarnation == incarnation:
            return snapshot
    if incarnation is not None:
        (fields,) = yield from ask(("HGETALL", keys.archive(incarnation)))
        if fields:
            return decode_header(instance, fields)
    raise InstanceNotFound(
        f"No instance of id {instance!r} is known. List those there are: headrace ls", instance=instance
    )


def read_snapshot(namespace: Namespace, instance: str, incarnation: str | None = None) -> Conversation[Snapshot]:
    """An instance with what it waits for. Raises `InstanceNotFound`."""
    header = yield from read_header(namespace, instance, incarnation)
    if header.has_ended:
        return header
    keys = namespace.of(instance)
    # Header and state of one moment: a commit may have come in between.
    current = keys.header(instance)
    reads: list[Command] = [("HGETALL", current), ("HGETALL", keys.state(header.incarnation))]
    ((fields, state),) = yield from ask_together(reads)
    if fields and (again := decode_header(instance, fields)).incarnation == header.incarnation:
        header = again
    if header.has_ended or not state:
        return header
    definition = yield from _readable_definition(namespace, header.definition)
    tokens = records.unpack_state(state)
    waiting, active = waits(tokens, definition)
    if active:  # or is there nobody to do them?
        waiting, active = waits(tokens, definition, (yield from live_workers(namespace.keys)))
    return replace(header, waiting_for=waiting, active=active)


def read_history(
    namespace: Namespace, instance: str, incarnation: str | None = None
) -> Conversation[list[HistoryEvent]]:
    """The whole history, oldest first. Raises `InstanceNotFound`."""
    header = yield from read_header(namespace, instance, incarnation)
    definition = yield from _readable_definition(namespace, header.definition)
    key = namespace.of(instance).history(header.incarnation)
    events: list[HistoryEvent] = []
    start = 0
    while True:
        (chunks,) = yield from ask(("LRANGE", key, start, start + _CHUNKS - 1))
        for chunk in chunks:
            events += [_event(entry, definition) for entry in history.unpack(chunk)]
        if len(chunks) < _CHUNKS:
            break
        start += _CHUNKS
    if header.has_ended:  # it may have been deleted meanwhile
        yield from read_header(namespace, instance, header.incarnation)
    return events


def read_slot(keys: PartitionKeys, incarnation: str, slot: str) -> Conversation[bytes | None]:
    """The value in a slot of an incarnation, as it lies there (`payloads.resolve` fetches what it names)."""
    (value,) = yield from ask(("HGET", keys.outputs(incarnation), slot))
    return cast("bytes | None", value)


def _readable_definition(namespace: Namespace, digest: str) -> Conversation[Definition | None]:
    try:
        return (yield from load_definition(namespace.keys, digest))
    except MessageError:  # a newer release's: nodes are shown by number
        return None


def _event(entry: history.Entry, definition: Definition | None) -> HistoryEvent:
    fields = entry.named()
    node = fields.pop("node", None)
    name = node_name(definition, node) if isinstance(node, int) else None
    return HistoryEvent(moment(entry.at), entry.kind, name, fields)
