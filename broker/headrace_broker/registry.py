"""Registered flows: their definitions, and which one is current.

Clients and workers store definitions when they start; a start by name uses the current one. A definition is never
changed, for its name is its content hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import cast

from . import scripting
from .connection import Reply, raise_error
from .conversations import Conversation, ask
from .definitions import Definition
from .errors import FlowNotFound, MessageError, ServerError
from .keys import Keys

_CHUNK = 256


@dataclass(frozen=True)
class FlowRecord:
    """The current definition of a flow. `schema` is the JSON schema of its input, as text; empty if unknown."""

    name: str
    version: int
    digest: str
    schema: str = ""


@cache
def _register() -> scripting.Script:
    return scripting.load("register")


def store_flow(keys: Keys, definition: Definition, *, version: int = 1, schema: str = "") -> Conversation[bool]:
    """Stores a definition and makes it its flow's current one; False if a higher version is. Idempotent."""
    # The definition first: a current hash must name something.
    yield from ask(("SET", keys.definition(definition.digest), definition.wire, "NX"))
    current, _ = yield from scripting.call(
        _register(), [keys.flow(definition.flow)], [version, definition.digest, schema]
    )
    yield from ask(("SADD", keys.flows, definition.flow))
    return bool(current)


def load_definition(keys: Keys, digest: str) -> Conversation[Definition | None]:
    """The definition of that hash; None if it is not stored. Raises `MessageError` if it cannot be read."""
    (data,) = yield from ask(("GET", keys.definition(digest)))
    return None if data is None else Definition.from_wire(data)


def current_flow(keys: Keys, name: str) -> Conversation[FlowRecord]:
    """The flow's current record. Raises `FlowNotFound`, which lists the flows there are, and `MessageError`."""
    (fields,) = yield from ask(("HMGET", keys.flow(name), "version", "hash", "schema"))
    version, digest, _ = fields
    if version is not None and digest is not None:
        return _record(name, fields)
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
    names = yield from flow_names(keys)
    records: list[FlowRecord] = []
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        replies = yield [("HMGET", keys.flow(name), "version", "hash", "schema") for name in chunk]
        for name, reply in zip(chunk, replies, strict=True):
            try:
                records.append(_record(name, reply))
            except MessageError:  # `headrace doctor` tells
                continue
    return records


def _record(name: str, reply: Reply) -> FlowRecord:
    """Raises `MessageError`."""
    try:
        version, digest, schema = cast("list[bytes | None]", raise_error(reply))
        return FlowRecord(name, int(version or b""), (digest or b"").decode(), (schema or b"").decode())
    except (ServerError, ValueError) as error:
        raise MessageError(
            f"The record of flow {name!r} cannot be read: {error}. A worker or client that has the flow stores it anew."
        ) from None
