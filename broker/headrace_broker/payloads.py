"""From Python objects to values and back, for clients and workers. The orchestrator has no use for this module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

from . import codec, values
from .connection import AsyncLink, Command, raise_error
from .errors import MessageError, PayloadMismatch, PayloadTooLarge
from .values import Composite, Inline, Output, Reference, Value

COMPOSITE_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of all payloads that one value names. A child needs seven times as much to make arguments of them, and its
event loop stands still for a second meanwhile: 250 MiB took 1.4 GiB and 5 s, and cost it its connections."""

_CHUNK: Final = 256
"""Keys or slots fetched per round trip. A slot has at most 16 KiB, but for the names in a composite …"""
_CHUNK_BYTES: Final = 8 * 1024 * 1024
"""… and keys are fewer if they are large."""


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

    Raises `MessageError` when something it names is gone, `PayloadTooLarge` (before it is fetched) when all of it
    together passes `COMPOSITE_LIMIT`, and `ServerUnreachable`.
    """
    if value[:1] in (b"m", b"j"):
        return value
    keys: dict[str, bytes] = {}
    slots: dict[str, Value] = {}
    fresh = [value]
    size = 0
    while fresh:  # a round trip or two for each level, however many slots it has
        named = [values.names(part) for part in fresh]
        sizes = {found.key: found.size for references, _ in named for found in references if found.key not in keys}
        size += sum(sizes.values())
        _check_total(size)
        keys |= await _fetch(link, ("MGET",), _by_size(sizes))
        wanted = {slot for _, names in named for slot in names} - slots.keys()
        found = await _fetch(link, ("HMGET", outputs_key), _by_count(sorted(wanted)))
        slots |= found
        size += sum(len(held) - 1 for held in found.values() if held[:1] in (b"m", b"j"))
        _check_total(size)
        fresh = list(found.values())
    return _replace(value, keys, slots, 0)


def _check_total(size: int) -> None:
    if size > COMPOSITE_LIMIT:
        raise PayloadTooLarge(
            f"The payloads that come together here have {size:,} bytes or more, the limit is {COMPOSITE_LIMIT:,}. "
            "Store the data elsewhere (a file, a database, an object store) and let the branches pass where it lies.",
            size=size,
            limit=COMPOSITE_LIMIT,
        )


def _by_count(names: list[str]) -> Iterator[list[str]]:
    return (names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK))


def _by_size(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    chunk: list[str] = []
    held = 0
    for key in sorted(sizes):
        if chunk and (len(chunk) == _CHUNK or held + sizes[key] > _CHUNK_BYTES):
            yield chunk
            chunk, held = [], 0
        chunk.append(key)
        held += sizes[key]
    if chunk:
        yield chunk


async def _fetch(link: AsyncLink, command: Command, chunks: Iterable[list[str]]) -> dict[str, bytes]:
    found: dict[str, bytes | None] = {}
    for chunk in chunks:
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
