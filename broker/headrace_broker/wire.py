"""MessagePack for what Headrace itself writes: messages, records, history, definitions.

Users' payloads have a codec of their own (`codec`). Nothing else imports msgpack, which has no type stubs.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any, cast

import msgpack

from .errors import MessageError

_msgpack: Any = msgpack

pack: Callable[[object], bytes] = _msgpack.Packer(autoreset=True).pack
"""Any object of None, bool, int, float, str, bytes, list, tuple and dict. Making a packer costs half of a call."""

_unpack: Callable[..., Any] = _msgpack.unpackb
_UNREADABLE: tuple[type[Exception], ...] = (ValueError, TypeError, _msgpack.UnpackException)


def unpack(data: bytes, *, any_key: bool = False) -> Any:
    """The one object in `data`; keys of maps are text or bytes, unless `any_key`.

    Raises `MessageError` for anything else.
    """
    try:
        return _unpack(data, strict_map_key=False) if any_key else _unpack(data)
    except _UNREADABLE as error:
        detail = (str(error) or type(error).__name__)[:200]
        raise MessageError(f"Not MessagePack: {detail}.") from None


def fields(value: Any, expected: str, *types: type) -> list[Any]:
    """`value`, if it is a list that starts with fields of just these types (`object`: any); more may follow.

    Raises `MessageError`, which says what was `expected`.
    """
    found: list[Any] = cast(Any, value) if type(value) is list else []
    if len(found) >= len(types) and all(
        kind is object or type(field) is kind for field, kind in zip(found, types, strict=False)
    ):
        return found
    raise MessageError(f"Expected {expected}; got {shown(value)}.")


def version(found: object, known: int, what: str) -> None:
    """Raises `MessageError` unless this release can read that version."""
    if type(found) is not int or found != known:
        raise MessageError(f"{what} has version {shown(found)}; this release reads version {known}.")


def shown(value: Any) -> str:
    """`value` for the text of an error: short, whatever came over the wire (`repr` fails on deep nesting)."""
    return reprlib.repr(value)
