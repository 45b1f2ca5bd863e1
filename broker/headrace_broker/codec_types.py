"""Which Python types a payload can hold, and what each becomes on the wire.

The table is a contract between all versions of clients and workers: a code is never used again for something
else, and its content never changes (golden bytes in the tests).

| type | wire |
| --- | --- |
| None, bool, float, str, bytes, list, dict, int of 64 bits | MessagePack's own |
| datetime (1), date (2), time (3) | ext: ISO 8601; keeps the offset, not the zone's name |
| timedelta (4) | ext: microseconds, as 7 |
| UUID (5) | ext: its 16 bytes |
| Decimal (6) | ext: its text, ASCII |
| int beyond 64 bits (7) | ext: two's complement, big endian, no superfluous byte |
| set (8), frozenset (9), tuple and NamedTuple (10) | ext: a MessagePack array |
| Enum | its value |
| pydantic model, dataclass, pydantic dataclass | map by field *name*; models through their serializers |
| subclass of str, int, float, bytes, list, dict; bytearray, memoryview | the plain type |
| deque; other mappings | list; map |
| Path, URL, IP address or network, ZoneInfo, Fraction | its text |

MessagePack's own timestamp (-1) is read as a datetime and never written.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import types
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from pathlib import PurePath
from typing import Any, Final, NamedTuple, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from msgpack import ExtType

DATETIME: Final = 1
DATE: Final = 2
TIME: Final = 3
TIMEDELTA: Final = 4
UUID_: Final = 5
DECIMAL: Final = 6
BIG_INT: Final = 7
SET: Final = 8
FROZENSET: Final = 9
TUPLE: Final = 10

_NATIVE: Final = frozenset((type(None), bool, float, str, bytes, bytearray, memoryview, list, dict))
_MICROSECOND: Final = timedelta(microseconds=1)
_AS_TEXT: Final = (
    PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    ZoneInfo,
    Fraction,
)


class Uncarried(TypeError):
    """The value's type is not in the table; the text says what to do."""


class Nested(NamedTuple):
    """An ext whose content is a MessagePack array of `items`."""

    code: int
    items: list[Any]


def convert(value: object) -> object:
    """What stands for `value` on the wire: a type that MessagePack has, an `ExtType`, or a `Nested`.

    One level only: what is inside is converted when it is packed. Raises `Uncarried`, and whatever a
    serializer of the author's raises.
    """
    exact = _EXACT.get(type(value))
    return exact(value) if exact is not None else _convert_other(value)


def is_native(value: object) -> bool:
    """Whether MessagePack packs `value` itself; what is inside may still need `convert`."""
    kind = type(value)
    return kind in _NATIVE or (kind is int and -(1 << 63) <= cast(int, value) < 1 << 64)


def _time(value: time) -> ExtType:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise Uncarried(
            f"a time in {value.tzinfo}, whose offset depends on the day, would lose its zone; "
            "carry a datetime, or the zone's name beside the time"
        )
    return ExtType(TIME, time.isoformat(value).encode())


def _int_bytes(number: int) -> bytes:
    return number.to_bytes(((number if number >= 0 else ~number).bit_length() + 8) // 8, "big", signed=True)


_EXACT: Final[dict[type, Callable[[Any], object]]] = {
    datetime: lambda v: ExtType(DATETIME, datetime.isoformat(v).encode()),
    date: lambda v: ExtType(DATE, date.isoformat(v).encode()),
    time: _time,
    timedelta: lambda v: ExtType(TIMEDELTA, _int_bytes(v // _MICROSECOND)),
    UUID: lambda v: ExtType(UUID_, v.bytes),
    Decimal: lambda v: ExtType(DECIMAL, Decimal.__str__(v).encode()),
    int: lambda v: ExtType(BIG_INT, _int_bytes(v)),
    set: lambda v: Nested(SET, list(v)),
    frozenset: lambda v: Nested(FROZENSET, list(v)),
    tuple: lambda v: Nested(TUPLE, list(v)),
}

_SUBCLASSES: Final[tuple[tuple[type, Callable[[Any], object]], ...]] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, lambda v: b"".join((v,))),
    (bytearray, bytes),
    (list, list),
    (dict, dict),
    *((kind, to_wire) for kind, to_wire in _EXACT.items() if kind is not int),
    (deque, list),
    (Mapping, dict),
    *((kind, str) for kind in _AS_TEXT),
)


def _convert_other(value: Any) -> object:
    kind: Any = cast(Any, type(value))
    if isinstance(value, Enum):
        return _again(value.value)
    if hasattr(kind, "__pydantic_fields__"):
        return _again(_dump(value, kind))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for base, plain in _SUBCLASSES:
        if isinstance(value, base):
            return _again(cast(Any, plain)(value))
    if kind.__module__ == "pydantic.networks" and hasattr(value, "unicode_string"):
        return str(value)
    raise Uncarried(_advice(value))


def _dump(model: Any, kind: Any) -> object:
    """By name, since an alias for output need not be one for input.

    `round_trip` leaves computed fields out and keeps `Json` as text. Wrong types are for the receiver.
    """
    try:
        return kind.__pydantic_serializer__.to_python(
            model, mode="python", by_alias=False, round_trip=True, warnings=False
        )
    except TypeError:  # pydantic cannot dump a set of models, since it makes them dicts first; we can
        if getattr(kind, "__pydantic_root_model__", False):
            return model.root
        fields: dict[str, Any] = {name: getattr(model, name) for name in kind.__pydantic_fields__}
        fields.update(getattr(model, "__pydantic_extra__", None) or {})
        return fields


def _again(value: object) -> object:
    return value if is_native(value) or isinstance(value, ExtType | Nested) else convert(value)


def _advice(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__} cannot be carried; pass its name, or an instance"
    if isinstance(value, Coroutine):
        return f"the coroutine {_name(cast(Any, value))} cannot be carried; was an `await` forgotten?"
    if isinstance(value, BaseException):
        return f"the exception {type(value).__name__} cannot be carried; pass its text"
    if isinstance(value, partial) or (callable(value) and hasattr(value, "__name__")):
        return f"the function {_name(cast(Any, value))} cannot be carried; carry data, call it in the task"
    if isinstance(value, types.ModuleType):
        return f"the module {value.__name__} cannot be carried; pass its name"
    kind = f"a value of type {type(value).__module__}.{type(value).__qualname__}".replace(" builtins.", " ")
    if hasattr(value, "get_secret_value"):
        return f"{kind} would lie in Redis in the clear; pass the secret's name and let the task look it up"
    if hasattr(value, "tolist"):
        return f"{kind} cannot be carried; use .tolist()"
    if hasattr(value, "fileno"):
        return f"{kind} cannot be carried; pass a path or the content"
    if isinstance(value, Iterable):
        return f"{kind} cannot be carried; use list(...)"
    return f"{kind} cannot be carried; use a pydantic model, a dataclass or plain data"


def _name(value: object) -> str:
    return str(getattr(value, "__qualname__", type(value).__name__))


def from_text(code: int, data: bytes) -> object:
    """The value of an ext that is no array. Raises `ValueError`, or what the type's own parser raises."""
    match code:
        case 1:
            return datetime.fromisoformat(data.decode())
        case 2:
            return date.fromisoformat(data.decode())
        case 3:
            return time.fromisoformat(data.decode())
        case 4:
            return timedelta(microseconds=int.from_bytes(data, "big", signed=True))
        case 5:
            return UUID(bytes=data)
        case 6:
            return Decimal(data.decode("ascii"))
        case 7:
            return int.from_bytes(data, "big", signed=True)
        case _:
            raise ValueError(f"ext code {code} is unknown: was it written by a newer Headrace?")


def from_items(code: int, items: list[Any]) -> object:
    """The value of an ext that is an array.

    A set of models or dataclasses comes back as a list of maps, which are not hashable; an annotation makes
    it a set again.
    """
    if code == TUPLE:
        return tuple(items)
    try:
        return set(items) if code == SET else frozenset(items)
    except TypeError:
        return items
