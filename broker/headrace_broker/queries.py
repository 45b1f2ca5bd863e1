"""Reading one instance: its header and state, its history, its values. Nothing here changes anything."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, cast

from . import history, records
from .connection import Command, raise_error
from .conversations import Conversation, ask, ask_together
from .definitions import Definition
from .errors import InvalidRequest, MessageError, ServerError
from .ids import check_instance_id
from .instances import unknown
from .keys import PartitionKeys
from .namespace import Namespace
from .registry import load_definition
from .snapshots import Snapshot, decode_header, moment, node_name, waits
from .workers import live_workers

_CHUNKS: Final = 256
"""Chunks of history per read; one chunk is one commit's entries of one instance."""
_POSITION: Final = re.compile(r"([A-Za-z0-9_-]{1,64}):(\d{1,18})\.(\d{1,18})")


@dataclass(frozen=True)
class HistoryEvent:
    """One fact of an instance's history. `fields` depend on the kind (`history.FIELDS`), with nodes by name.

    `position` is opaque: what follows this event is read with it (`HistoryReader`).
    """

    at: datetime
    kind: str
    node: str | None
    fields: Mapping[str, Any]
    position: str = ""


@dataclass(frozen=True)
class HistoryPage:
    """A piece of a history. `more` is there already; `ended`: the instance had ended before this was read."""

    events: Sequence[HistoryEvent]
    more: bool
    ended: bool


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
    raise unknown(instance)


def read_snapshot(namespace: Namespace, instance: str, incarnation: str | None = None) -> Conversation[Snapshot]:
    """An instance with what it waits for. Raises `InstanceNotFound`."""
    header = yield from read_header(namespace, instance, incarnation)
    if header.has_ended:
        return header
    keys = namespace.of(instance)
    # Header and state of one moment: a commit may have come in between.
    current = keys.header(instance)
    reads: list[Command] = [("HGETALL", current), ("HGETALL", keys.state(header.incarnation))]
    ((fields, state),) = yield from ask_together(reads, tolerant=True)
    raise_error(fields)
    if isinstance(state, ServerError) and header.status != "blocked":
        raise state
    if fields and (again := decode_header(instance, fields)).incarnation == header.incarnation:
        header = again
    if header.has_ended or not state:
        return header
    definition = yield from _readable_definition(namespace, header.definition)
    try:
        tokens = records.unpack_state(raise_error(state))
    except (MessageError, ServerError):
        if header.status != "blocked":
            raise
        return header  # its reason tells
    waiting, active = waits(tokens, definition)
    if active:  # or is there nobody to do them?
        waiting, active = waits(tokens, definition, (yield from live_workers(namespace.keys)))
    return replace(header, waiting_for=waiting, active=active)


def read_history(
    namespace: Namespace, instance: str, incarnation: str | None = None
) -> Conversation[list[HistoryEvent]]:
    """The whole history, oldest first. Raises `InstanceNotFound`."""
    reader = HistoryReader(instance, incarnation)
    events: list[HistoryEvent] = []
    while True:
        page = yield from reader.read(namespace)
        events += page.events
        if not page.more:
            break
    if page.ended:  # it may have been deleted meanwhile
        yield from read_header(namespace, instance, reader.incarnation)
    return events


class HistoryReader:
    """Reads a history in order, piece by piece. Where a read was not answered, the next one reads the same."""

    def __init__(self, instance: str, incarnation: str | None = None, after: str | None = None) -> None:
        """From the beginning, or behind the event of the position `after`.

        Raises `InvalidInstanceId`, and `InvalidRequest` for what is no position in the history of that incarnation.
        """
        self.instance = check_instance_id(instance)
        self.incarnation = incarnation
        self._chunk = 0
        self._skip = 0
        """Entries of that chunk that were read before."""
        self._definition: Definition | None = None
        if after is not None:
            self._go_behind(after)

    def _go_behind(self, position: object) -> None:
        parsed = _POSITION.fullmatch(position) if isinstance(position, str) else None
        if parsed is None:
            raise InvalidRequest(f"A position is what an event of a history carries; got {position!r:.80}.")
        if self.incarnation not in (None, parsed[1]):
            raise InvalidRequest(
                f"The position {position} belongs to another use of the id {self.instance!r}. Read this one's history "
                "from its beginning, or the other one's by a handle made of the id alone: client.handle(id)."
            )
        self.incarnation, self._chunk, self._skip = parsed[1], int(parsed[2]), int(parsed[3]) + 1

    def read(self, namespace: Namespace) -> Conversation[HistoryPage]:
        """What follows, as far as it is there. Raises `InstanceNotFound`."""
        header = yield from read_header(namespace, self.instance, self.incarnation)
        if self._definition is None:
            self._definition = yield from _readable_definition(namespace, header.definition)
        key = namespace.of(self.instance).history(header.incarnation)
        start, skip = self._chunk, self._skip
        count, chunks = yield from ask(("LLEN", key), ("LRANGE", key, start, start + _CHUNKS - 1))
        if count < start + bool(skip):  # a failover lost the end of it: what comes now takes its place
            self._chunk, self._skip = count, 0
            return HistoryPage((), more=True, ended=header.has_ended)
        events: list[HistoryEvent] = []
        for number, chunk in enumerate(chunks, start):
            for place, entry in enumerate(history.unpack(chunk)):
                if number > start or place >= skip:
                    events.append(_event(entry, self._definition, f"{header.incarnation}:{number}.{place}"))
        self.incarnation = header.incarnation
        if chunks:
            self._chunk, self._skip = start + len(chunks), 0
        return HistoryPage(events, more=len(chunks) == _CHUNKS, ended=header.has_ended)


def read_slot(keys: PartitionKeys, incarnation: str, slot: str) -> Conversation[bytes | None]:
    """The value in a slot of an incarnation, as it lies there (`payloads.resolve` fetches what it names)."""
    (value,) = yield from ask(("HGET", keys.outputs(incarnation), slot))
    return cast("bytes | None", value)


def _readable_definition(namespace: Namespace, digest: str) -> Conversation[Definition | None]:
    try:
        return (yield from load_definition(namespace.keys, digest))
    except MessageError:  # a newer release's: nodes are shown by number
        return None


def _event(entry: history.Entry, definition: Definition | None, position: str) -> HistoryEvent:
    fields = entry.named()
    node = fields.pop("node", None)
    name = node_name(definition, node) if isinstance(node, int) else None
    return HistoryEvent(moment(entry.at), entry.kind, name, fields, position)
