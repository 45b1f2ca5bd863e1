"""Registered flows: their definitions, and which one is current.

Clients and workers store definitions when they start; a start by name uses the current one. A definition is never
changed, for its name is its content hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

from . import scripting
from .clock import ASK, milliseconds
from .connection import Command, Reply, raise_error
from .conversations import Conversation, ask
from .definitions import Definition
from .errors import FlowNotFound, MessageError, ServerError
from .keys import Keys
from .retention import UNSAID, Retention

_CHUNK = 256


@dataclass(frozen=True)
class FlowRecord:
    """The current definition of a flow. `schema` is the JSON schema of its input, as text; empty if unknown."""

    name: str
    version: int
    digest: str
    schema: str = ""
    retention: Retention = UNSAID


@cache
def _register() -> scripting.Script:
    return scripting.load("register")


def store_flow(
    keys: Keys,
    definition: Definition,
    *,
    version: int = 1,
    schema: str = "",
    retention: Retention | None = None,
) -> Conversation[bool]:
    """Stores a definition and makes it its flow's current one; False if a higher version is. Idempotent."""
    (time,) = yield from ask(ASK)
    # Before the definition, so that a sweeper which finds it old puts back what it deleted (ADR 6); and the definition
    # before the flow's record: a current hash must name something.
    yield from ask(
        ("ZADD", keys.definitions, milliseconds(time), definition.digest),
        ("SET", keys.definition(definition.digest), definition.wire, "NX"),
    )
    kept = retention.to_text() if retention is not None else ""
    current, _ = yield from scripting.call(
        _register(), [keys.flow(definition.flow)], [version, definition.digest, schema, kept]
    )
    yield from ask(("SADD", keys.flows, definition.flow))
    return bool(current)


def load_definition(keys: Keys, digest: str) -> Conversation[Definition | None]:
    """The definition of that hash; None if it is not stored. Raises `MessageError` if it cannot be read."""
    (data,) = yield from ask(("GET", keys.definition(digest)))
    return None if data is None else Definition.from_wire(data)


def current_flow(keys: Keys, name: str) -> Conversation[FlowRecord]:
    """The flow's current record. Raises `FlowNotFound`, which lists the flows there are, and `MessageError`."""
    (fields,) = yield from ask(_record_fields(keys, name))
    record = _record(name, fields)
    if record is not None:
        return record
    known = yield from flow_names(keys)
    listed = ", ".join(known[:20]) + (" …" if len(known) > 20 else "")
    raise FlowNotFound(
        f"No flow named {name!r} is registered in namespace {keys.ns!r}; "
        + (f"there are: {listed}." if known else "there are none. Start a worker that has it: headrace worker TARGET"),
        flow=name,
    )


def flow_names(keys: Keys) -> Conversation[list[str]]:
    """The names of all registered flows, sorted."""
    (names,) = yield from ask(("SMEMBERS", keys.flows))
    return sorted(name.decode() for name in names)


def list_flows(keys: Keys) -> Conversation[list[FlowRecord]]:
    """The current records of all registered flows that can be read, by name."""
    return (yield from read_flows(keys, (yield from flow_names(keys))))


def read_flows(keys: Keys, names: Sequence[str]) -> Conversation[list[FlowRecord]]:
    """The current records of these flows, as far as they are registered and can be read."""
    records: list[FlowRecord] = []
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        replies = yield [_record_fields(keys, name) for name in chunk]
        for name, reply in zip(chunk, replies, strict=True):
            try:
                record = _record(name, reply)
            except MessageError:  # `headrace doctor` tells
                continue
            if record is not None:
                records.append(record)
    return records


def _record_fields(keys: Keys, name: str) -> Command:
    return ("HMGET", keys.flow(name), "version", "hash", "schema", "retention")


def _record(name: str, reply: Reply) -> FlowRecord | None:
    """None if there is none. Raises `MessageError`."""
    try:
        version, digest, schema, retention = cast("list[bytes | None]", raise_error(reply))
        if version is None or digest is None:
            return None
        kept = Retention.from_text((retention or b"").decode())
        return FlowRecord(name, int(version), digest.decode(), (schema or b"").decode(), kept)
    except (ServerError, ValueError) as error:
        raise MessageError(
            f"The record of flow {name!r} cannot be read: {error}. A worker or client that has the flow stores it anew."
        ) from None
