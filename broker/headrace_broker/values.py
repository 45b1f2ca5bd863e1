"""Values: what flows between steps, as bytes that start with a tag. The orchestrator moves and composes them, and
never looks inside a payload (invariant 5).

    m <payload>             inline MessagePack (see `codec`), at most `INLINE_LIMIT` bytes
    j <payload>             inline JSON, from raw signals and `headrace start`
    r [key, size, tag]      the payload lies at a string key of the same partition; tag says how it is encoded
    o <slot>                the value lies in this field of the same instance's outputs
    e [type, message, …]    (later) a failed branch, as `collect` hands it on
    c [shape, names, parts] composite: parts are values, by name; no references to other instances

A *slot* is a field of an instance's outputs hash. Tokens and frames name slots, never bytes, so what an instance
carries from step to step costs the same whatever its size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from . import wire
from .errors import MessageError

Value = bytes
Shape = Literal["args", "dict", "list", "pair"]
"""What a composite becomes: arguments of a join by name, a dict, a list, or a tuple of two."""

MAX_DEPTH = 64


class Inline(NamedTuple):
    """A payload. `codec` is `m` (MessagePack) or `j` (JSON)."""

    codec: str
    payload: bytes


class Reference(NamedTuple):
    """A payload of `size` bytes at a string key."""

    key: str
    size: int
    codec: str


class Output(NamedTuple):
    """A value in a slot of the instance's outputs."""

    slot: str


class Composite(NamedTuple):
    """Values by name; names of a list or pair are empty."""

    shape: Shape
    names: Sequence[str]
    parts: Sequence[Value]


def inline(payload: bytes, codec: str = "m") -> Value:
    return codec.encode() + payload


def reference(key: str, size: int, codec: str = "m") -> Value:
    return b"r" + wire.pack((key, size, codec))


def output(slot: str) -> Value:
    return b"o" + slot.encode()


def composite(shape: Shape, names: Iterable[str], parts: Iterable[Value]) -> Value:
    return b"c" + wire.pack((shape, list(names), list(parts)))


def parse(value: Value) -> Inline | Reference | Output | Composite:
    """Raises `MessageError` for bytes that are no value."""
    tag, body = value[:1], value[1:]
    if tag in (b"m", b"j"):
        return Inline(tag.decode(), body)
    if tag == b"o":
        try:
            return Output(body.decode())
        except UnicodeDecodeError:
            pass
    elif tag == b"r":
        key, size, codec, *_ = wire.fields(wire.unpack(body), "a reference [key, size, tag]", str, int, str)
        if size >= 0 and codec in ("m", "j"):
            return Reference(key, size, codec)
    elif tag == b"c":
        return _composite(wire.unpack(body))
    raise MessageError(f"A value starts with one of m j r o c and fits its tag; got {value[:40]!r}.")


def _composite(body: object) -> Composite:
    shape, names, parts, *_ = wire.fields(body, "a composite [shape, names, parts]", str, list, list)
    match shape:
        case "args" | "dict":
            fits = len(names) == len(parts)
        case "pair":
            fits = len(parts) == 2
        case _:
            fits = shape == "list"
    if not (fits and set(map(type, names)) <= {str} and set(map(type, parts)) <= {bytes}):
        raise MessageError(f"Not a composite: {wire.shown(body)}.")
    return Composite(shape, names, parts)


def check_references(value: Value, prefix: str) -> None:
    """Raises `MessageError` unless every key that `value` names starts with `prefix`: nobody names another's keys."""
    keys, _ = needs(value)
    for key in keys:
        if not key.startswith(prefix):
            raise MessageError(f"A value refers to {key!r}, which is not its instance's.")


def large_keys(value: Value | None) -> list[str]:
    """The key of a large value, which whoever takes or drops the value keeps or deletes; none for any other value."""
    return needs(value)[0] if value is not None and is_reference(value) else []


def is_reference(value: Value) -> bool:
    return value[:1] == b"r"


def needs(value: Value) -> tuple[list[str], list[str]]:
    """The (keys, slots) that must be fetched before `value` can be read; raises as `names` does."""
    found, slots = names(value)
    return [reference.key for reference in found], slots


def names(value: Value) -> tuple[list[Reference], list[str]]:
    """The (references, slots) in `value`; one level, a slot may hold more.

    Raises `MessageError` for bytes that are no value, or that nest deeper than 64.
    """
    found: list[Reference] = []
    slots: list[str] = []
    _collect(value, found, slots, 0)
    return found, slots


def _collect(value: Value, found: list[Reference], slots: list[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise MessageError(f"A composite nests at most {MAX_DEPTH} deep.")
    match parse(value):
        case Reference() as reference:
            found.append(reference)
        case Output(slot=slot):
            slots.append(slot)
        case Composite(parts=parts):
            for part in parts:
                _collect(part, found, slots, depth + 1)
        case Inline():
            return
