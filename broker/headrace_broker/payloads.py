"""From Python objects to values and back, for clients and workers. The orchestrator has no use for this module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from . import codec, values
from .connection import AsyncLink, Command, raise_error
from .errors import MessageError, PayloadMismatch
from .values import Composite, Inline, Output, Reference, Value

_CHUNK = 256
"""Keys or slots fetched per round trip: at most 256 × 1 MiB."""


class Stored(NamedTuple):
    """A value, and what must be SET in the same transaction as the message that carries it (None: it is inline)."""

    value: Value
    write: tuple[str, bytes] | None


def store(payload: bytes, name_key: Callable[[], str], tag: str = "m") -> Stored:
    """A payload as a value: inline up to `INLINE_LIMIT`, else by reference to the key that `name_key` names.

    Raises `PayloadTooLarge`.
    """
    codec.check_size(payload)
    if len(payload) <= codec.INLINE_LIMIT:
        return Stored(values.inline(payload, tag), None)
    key = name_key()
    return Stored(values.reference(key, len(payload), tag), (key, payload))


def load(value: Value, annotation: Any = Any) -> Any:
    """The object in a *resolved* value (see `resolve`), validated against `annotation`.

    Raises `PayloadMismatch`.
    """
    match values.parse(value):
        case Inline(codec="j", payload=payload):
            return codec.decode_json(payload, annotation)
        case Inline(payload=payload):
            return codec.decode(payload, annotation)
        case Composite() as composite:
            plain = _plain(composite)
            if annotation is Any:
                return plain
            return codec.validate(plain, annotation)
        case Reference() | Output():
            raise PayloadMismatch("The value is not resolved.")


def arguments(value: Value) -> Mapping[str, Value] | None:
    """The values by argument name of a join's input; None if the value is not one."""
    parsed = values.parse(value)
    if isinstance(parsed, Composite) and parsed.shape == "args":
        return dict(zip(parsed.names, parsed.parts, strict=True))
    return None


def _plain(composite: Composite) -> Any:
    parts = [load(part) for part in composite.parts]
    if composite.shape == "list":
        return parts
    if composite.shape == "pair":
        return tuple(parts)
    return dict(zip(composite.names, parts, strict=True))


async def resolve(link: AsyncLink, value: Value, outputs_key: str) -> Value:
    """The value with every reference and slot replaced by what it names, fetched in chunks.

    Raises `MessageError` when something it names is gone, and `ServerUnreachable`.
    """
    if value[:1] in (b"m", b"j"):
        return value
    keys: dict[str, bytes] = {}
    slots: dict[str, Value] = {}
    fresh = [value]
    while fresh:  # a round trip or two for each level, however many slots it has
        needed = [values.needs(part) for part in fresh]
        keys |= await _fetch(link, ("MGET",), {key for need in needed for key in need[0]} - keys.keys())
        wanted = {slot for need in needed for slot in need[1]} - slots.keys()
        found = await _fetch(link, ("HMGET", outputs_key), wanted)
        slots |= found
        fresh = list(found.values())
    return _replace(value, keys, slots, 0)


async def _fetch(link: AsyncLink, command: Command, wanted: set[str]) -> dict[str, bytes]:
    names = sorted(wanted)
    found: dict[str, bytes | None] = {}
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        reply = raise_error((await link.exchange([(*command, *chunk)]))[0])
        found |= zip(chunk, cast("list[bytes | None]", reply), strict=True)
    missing = [name for name, data in found.items() if data is None]
    if missing:
        raise MessageError(f"A value names data that is gone: {missing[0]} ({len(missing)} in all).")
    return cast("dict[str, bytes]", found)


def _replace(value: Value, keys: Mapping[str, bytes], slots: Mapping[str, Value], depth: int) -> Value:
    if depth > values.MAX_DEPTH:  # or slots that name each other
        raise MessageError(f"A value nests at most {values.MAX_DEPTH} deep.")
    match values.parse(value):
        case Inline():
            return value
        case Reference(key=key, codec=tag):
            return values.inline(keys[key], tag)
        case Output(slot=slot):
            return _replace(slots[slot], keys, slots, depth + 1)
        case Composite(shape=shape, names=names, parts=parts):
            plain = [_replace(part, keys, slots, depth + 1) for part in parts]
            return values.composite(shape, names, plain)
