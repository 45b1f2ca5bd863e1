"""The payload codec: what clients and workers put into values, and get out of them.

MessagePack with ext types, no pickle ever. `codec_types` lists the types and is the wire contract. A payload
has no version of its own: the value's tag (see `values`) names the codec.

`encode` forgets classes, `decode` puts them back from the receiver's annotation through pydantic (lax mode,
as is pydantic's default), or gives plain data where there is none: a model becomes a dict, a datetime stays a
datetime, a tuple a tuple.

Models travel by field name and are validated by name *or* alias, so that both a stored model and a dict typed
by hand validate. Aliases win; hence `adapter` refuses a model in which one field's alias is another's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import msgpack
from msgpack import ExtType

from .codec_errors import find_problem, mismatch, short_type
from .codec_types import FROZENSET, SET, TUPLE, Nested, convert, from_items, from_text
from .errors import FlowError, PayloadMismatch, PayloadNotSerializable, PayloadTooLarge

if TYPE_CHECKING:
    from pydantic import TypeAdapter

INLINE_LIMIT: Final = 16 * 1024
"""Bytes up to which a value lies inside state and messages; above, it gets a key of its own."""
PAYLOAD_LIMIT: Final = 1024 * 1024
"""Bytes of a payload, unless a setting says otherwise."""
MAX_DEPTH: Final = 128
"""Levels of lists, maps, models … in a payload, tuples and sets included."""
MAX_EXT_DEPTH: Final = 32
"""Tuples and sets within tuples and sets: each level costs 40 KiB of C stack when it is read."""

_msgpack: Any = msgpack  # it has no type stubs
_FAST_EXT_DEPTH: Final = 4
"""Deeper ones are looked at with care from the beginning."""
_HEADS: Final = bytes((*range(0x80, 0xA0), *range(0xC7, 0xCA), *range(0xD4, 0xD9), *range(0xDC, 0xE0)))
"""Bytes that can begin a list, a map or an ext: there are at least as many of them as levels."""
_MAPS: Final = frozenset((dict,))
_CONTAINERS: Final = _MAPS | {list, tuple, set, frozenset}
_MAY_OVERFLOW: Final = re.compile(rb"[eE]\+?[0-9]{3}|[0-9]{300}")
"""Numbers that are read as infinity if they are any."""
_POOLED: Final = 64 * 1024
_ADAPTERS: Final = 2048


class _Encoder:
    """A packer and what it must remember of the value at hand. One thread uses it at a time."""

    __slots__ = ("_depth", "_max_ext_depth", "_pack", "suspect")

    def __init__(self, max_ext_depth: int) -> None:
        self._max_ext_depth = max_ext_depth
        self._depth = 0
        self.suspect = False
        """Something hashable became a map: as a key, or in a set that is a key, it could not be read back."""
        self._pack: Callable[[object], bytes] = _msgpack.Packer(default=self._default, strict_types=True).pack

    def encode(self, value: object) -> bytes:
        # Inside a list, since msgpack packs one level more than it unpacks.
        return self._pack([value])[1:]

    def _default(self, value: object) -> object:
        wire = convert(value)
        if isinstance(wire, Nested):
            if self._depth == self._max_ext_depth:
                raise ValueError("nested too deeply")
            self._depth += 1
            content = _msgpack.packb(wire.items, default=self._default, strict_types=True)
            self._depth -= 1
            return ExtType(wire.code, content)
        if type(wire) in (dict, list) and type(value).__hash__ is not None:
            self.suspect = True
        return wire


_encoders: list[_Encoder] = []


def encode(value: object) -> bytes:
    """`value` as bytes. Raises `PayloadNotSerializable`, which says where in `value` the trouble is."""
    try:
        encoder = _encoders.pop()
    except IndexError:
        encoder = _Encoder(_FAST_EXT_DEPTH)
    try:
        data = encoder.encode(value)
        if encoder.suspect:
            encoder.suspect = False
            _unpack(data)
        if len(data) > MAX_DEPTH and len(data) - len(data.translate(None, _HEADS)) > MAX_DEPTH:
            _check_depth(_unpack(data))
    except Exception as error:  # noqa: BLE001 a serializer of the author's may raise anything
        return _encode_with_care(value, error)
    if len(data) < _POOLED:  # else its buffer would stay as large as the largest payload ever
        _encoders.append(encoder)
    return data


def _encode_with_care(value: object, reason: Exception) -> bytes:
    problem = find_problem(value, MAX_DEPTH)
    if problem is not None:
        raise PayloadNotSerializable(f"{problem}.") from reason
    try:  # known now: no deeper than MAX_DEPTH in all
        data = _Encoder(MAX_EXT_DEPTH).encode(value)
        _check_depth(_unpack(data))
    except Exception as error:
        limits = f"at most {MAX_DEPTH} levels, {MAX_EXT_DEPTH} of them tuples and sets"
        raise PayloadNotSerializable(f"value cannot be carried: {error} ({limits}).") from error
    return data


def _items(container: Any) -> Iterable[Any]:
    is_map: bool = type(container) in _MAPS
    items: Iterable[Any] = container.values() if is_map else container
    return items


def _check_depth(plain: object) -> None:
    """Raises `PayloadNotSerializable` for plain data that nests too deeply, found level by level: on no stack."""
    level: list[Any] = [plain] if type(plain) in _CONTAINERS else []
    for _ in range(MAX_DEPTH):
        level = [item for each in level for item in _items(each) if type(item) in _CONTAINERS]
        if not level:
            return
    raise PayloadNotSerializable(f"{find_problem(plain, MAX_DEPTH)}.")


def decode(data: bytes, annotation: object = Any) -> Any:
    """The value in `data`, validated against `annotation`.

    Raises `PayloadMismatch` if it does not validate or `data` is not of this codec, `FlowError` if the
    annotation is nothing that pydantic can validate.
    """
    try:
        value = _unpack(data)
    except Exception as error:
        detail = (str(error) or type(error).__name__)[:200]
        raise PayloadMismatch(f"The {len(data)} bytes are not a MessagePack payload: {detail}.") from error
    return validate(value, annotation)


def validate(value: object, annotation: object) -> Any:
    """Plain `value` as `annotation` says, by field name or alias. Raises as `decode` does."""
    if annotation is Any or annotation is object:
        return value
    validator = adapter(annotation)
    try:
        return validator.validate_python(value, by_alias=True, by_name=True)
    except Exception as error:  # a validator of the author's may raise anything
        raise PayloadMismatch(mismatch(annotation, error)) from error


def decode_json(data: bytes, annotation: object = Any) -> Any:
    """The value in the JSON `data`, validated in JSON mode: an ISO text becomes a datetime, a list a set.

    Raises as `decode` does.
    """
    validator = adapter(annotation)
    try:
        return validator.validate_json(data, by_alias=True, by_name=True)
    except Exception as error:  # a validator of the author's may raise anything
        raise PayloadMismatch(mismatch(annotation, error)) from error


def check_size(data: bytes, limit: int = PAYLOAD_LIMIT) -> None:
    """Raises `PayloadTooLarge` if `data` has more than `limit` bytes."""
    if len(data) > limit:
        raise PayloadTooLarge(
            f"The payload has {len(data):,} bytes, the limit is {limit:,}. "
            "Store the data elsewhere (a file, a database, an object store) and pass where it lies.",
            size=len(data),
            limit=limit,
        )


def check_json(data: bytes) -> None:
    """Raises `PayloadNotSerializable` if `data` is not JSON in UTF-8, which knows no NaN, or nests too deeply."""
    from pydantic_core import from_json

    try:
        data.decode()
        plain = from_json(data, allow_inf_nan=False, cache_strings=False)
    except ValueError as error:
        raise PayloadNotSerializable(
            f"Not JSON: {error}; got {data[:40].decode(errors='replace')!r}. "
            "A string is in double quotes; there is no NaN and no Infinity."
        ) from error
    check_json_depth(data, plain)
    if _MAY_OVERFLOW.search(data):
        _check_finite(plain)


def _check_finite(plain: object) -> None:
    try:
        json.dumps(plain, allow_nan=False)
    except ValueError as error:
        raise PayloadNotSerializable("Not JSON: a number is larger than a float can be; carry it as text.") from error


def check_json_depth(data: bytes, plain: object) -> None:
    """Raises `PayloadNotSerializable` if `plain`, which is what `data` says, nests too deeply."""
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(plain)


# By identity: `int | str == str | int`, yet they validate differently. The entry keeps the annotation alive,
# so that its id is not used again.
_adapters: dict[int, tuple[object, TypeAdapter[Any]]] = {}


def adapter(annotation: object) -> TypeAdapter[Any]:
    """The validator of `annotation`, made once. Raises `FlowError` if pydantic cannot make one."""
    entry = _adapters.get(id(annotation))
    if entry is not None:
        return entry[1]
    from pydantic import TypeAdapter

    try:
        made: TypeAdapter[Any] = TypeAdapter(cast(Any, annotation))
        if not made.pydantic_complete:
            made.rebuild(raise_errors=True)
        schema = made.core_schema
    except Exception as error:
        detail = str(error).partition("\n")[0]
        raise FlowError(f"Payloads cannot be validated against {short_type(annotation)}: {detail}") from error
    for field, alias in _ambiguous(schema):
        raise FlowError(
            f"In {short_type(annotation)}, field {field!r} has the alias {alias!r}, which is the name of "
            "another field of that model: a stored model could be misread. Rename one of them."
        )
    if len(_adapters) >= _ADAPTERS:
        _adapters.clear()
    _adapters[id(annotation)] = (annotation, made)
    return made


def _ambiguous(schema: object) -> Iterator[tuple[str, str]]:
    """Each (field, alias) whose alias names another field. `schema` is a core schema of pydantic's."""
    if isinstance(schema, list | tuple):
        for item in cast(Sequence[object], schema):
            yield from _ambiguous(item)
    if not isinstance(schema, dict):
        return
    tree = cast(dict[str, Any], schema)
    fields: Any = tree.get("fields")
    if tree.get("type") == "dataclass-args":
        fields = {field["name"]: field for field in fields}
    if tree.get("type") in ("model-fields", "typed-dict", "dataclass-args"):
        for name, field in fields.items():
            for first in _first_keys(field.get("validation_alias")):
                if first != name and first in fields:
                    yield name, first
    for key, item in tree.items():
        if key not in ("metadata", "serialization"):
            yield from _ambiguous(item)


def _first_keys(alias: Any) -> list[str]:
    if not alias:
        return []
    if isinstance(alias, str):
        return [alias]
    return [alias[0]] if isinstance(alias[0], str) else [path[0] for path in alias]


def _unpack(data: bytes, depth: int = 0) -> Any:
    return _msgpack.unpackb(data, ext_hook=_EXT_HOOKS[depth], strict_map_key=False, timestamp=3)


def _ext(depth: int, code: int, data: bytes) -> object:
    if code not in (SET, FROZENSET, TUPLE):
        return from_text(code, data)
    if depth == MAX_EXT_DEPTH:
        raise ValueError(f"tuples and sets nest deeper than {MAX_EXT_DEPTH}")
    items = _unpack(data, depth + 1)
    if type(items) is not list:
        raise ValueError(f"ext code {code} holds no array")
    return from_items(code, cast(Any, items))


_EXT_HOOKS: Final = [partial(_ext, depth) for depth in range(MAX_EXT_DEPTH + 1)]
