"""What the codec says when a payload cannot be written or does not fit: where, and what to do.

Slow and thorough: it runs only after the fast path has failed. Messages end up in histories and logs, so they
show at most the offending scalar, never the payload.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, cast

from msgpack import ExtType

from .codec_types import Nested, convert, is_native

_SHOWN_ERRORS: Final = 3
_SHOWN_CHARACTERS: Final = 40
_TOO_DEEP: Final = "nested too deeply"


class _Problem(NamedTuple):
    steps: list[str]
    """From the inside out."""
    text: str


def find_problem(value: object, max_depth: int) -> str | None:
    """The first place in `value` that cannot be carried: "value.items[3].callback: the function …"."""
    try:
        problem = _find(value, max_depth, set())
    except RecursionError:
        problem = _Problem([], "the stack is too full to look inside; is the caller nested very deeply?")
    if problem is None:
        return None
    text = problem.text
    if text is _TOO_DEEP:
        text = f"nested deeper than {max_depth} levels; flatten it, or store it elsewhere and carry where it lies"
    return f"{_path(reversed(problem.steps))}: {text}"


def _find(value: object, levels: int, above: set[int]) -> _Problem | None:
    if id(value) in above:
        return _Problem([], "it contains itself; carry ids, or a list of edges")
    try:
        wire = value if is_native(value) else convert(value)
    except RecursionError:
        raise
    except Exception as error:  # noqa: BLE001 a serializer of the author's may raise anything
        return _Problem([], str(error) or f"{type(error).__name__} while it was read")
    if isinstance(wire, str):
        return _find_surrogate(wire)
    children: Iterable[tuple[str, object]]
    if isinstance(wire, dict):
        entries = cast(dict[object, object], wire)
        for key in entries:
            problem = _find_in_key(key, levels)
            if problem is not None:
                return problem
        children = ((_step(key), item) for key, item in entries.items())
    elif isinstance(wire, list | Nested):
        items = wire.items if isinstance(wire, Nested) else cast(list[object], wire)
        children = ((f"[{index}]", item) for index, item in enumerate(items))
    else:
        return None
    if levels == 0:
        return _Problem([], _TOO_DEEP)
    above.add(id(value))
    for step, item in children:
        problem = _find(item, levels - 1, above)
        if problem is not None:
            problem.steps.append(step)
            return problem
    above.discard(id(value))
    return None


def _find_in_key(key: object, levels: int) -> _Problem | None:
    problem = _find(key, levels, set())
    if problem is not None:
        return _Problem([_step(key)], f"as a key: {problem.text}")
    if not _stays_hashable(key):
        kind = type(key).__qualname__
        return _Problem([_step(key)], f"a {kind} is no key once it is stored; use its id, or a list of pairs")
    return None


def _stays_hashable(key: object) -> bool:
    wire = key if is_native(key) else convert(key)
    if isinstance(wire, Nested):
        return all(_stays_hashable(item) for item in wire.items)
    return not isinstance(wire, dict | list)


def _find_surrogate(text: str) -> _Problem | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = f"U+{ord(text[error.start]):04X} at {error.start}"
        return _Problem([], f"text with a lone surrogate ({at}) is not Unicode; clean it, or carry bytes")
    return None


def _path(steps: Iterable[str]) -> str:
    path = "value" + "".join(steps)
    return path if len(path) <= 200 else f"{path[:100]}…{path[-60:]}"


def _step(key: object) -> str:
    if isinstance(key, str) and key.isidentifier() and len(key) <= _SHOWN_CHARACTERS:
        return f".{key}"
    return f"[{_short(key)}]"


def mismatch(annotation: object, error: Exception) -> str:
    """Why a payload does not fit: "The payload does not fit Order: items[3].price: …, got str 'abc'."""
    from pydantic import ValidationError

    head = f"The payload does not fit {short_type(annotation)}"
    if not isinstance(error, ValidationError):
        return f"{head}: its validator raised {type(error).__name__}: {str(error)[:200]}"
    found = error.errors(include_url=False, include_context=False)
    lines: list[str] = []
    for item in found[:_SHOWN_ERRORS]:
        path = _path(map(_step, item["loc"]))
        came = "" if item["type"] == "missing" else f", got {_came(item['input'])}"
        lines.append(f"{path}: {item['msg'][:1].lower()}{item['msg'][1:200]}{came}")
    more = len(found) - len(lines)
    return f"{head}: {'; '.join(lines)}{f' (and {more} more)' if more > 0 else ''}."


def _came(value: object) -> str:
    if value is None:
        return "None"
    kind = type(value).__name__
    if isinstance(value, list | tuple | dict | set | frozenset):
        return f"{kind} of {len(cast(list[Any], value))}"
    return f"{kind} {_short(value)}"


def _short(value: object) -> str:
    """A scalar, cut; anything else by its type, since its `repr` may be of any size or raise."""
    if isinstance(value, str | bytes):
        cut = value[:_SHOWN_CHARACTERS]
        return f"{cut!r}…" if len(value) > _SHOWN_CHARACTERS else repr(cut)
    if type(value) is int and value.bit_length() > 128:
        return f"of {value.bit_length()} bits"
    if not is_native(value) and isinstance(_safe_convert(value), ExtType):
        return str(value)[:_SHOWN_CHARACTERS]
    return repr(value) if type(value) in (int, float, bool, type(None)) else type(value).__qualname__


def _safe_convert(value: object) -> object:
    try:
        return convert(value)
    except Exception:  # noqa: BLE001 only to say more in a message
        return None


def short_type(annotation: object) -> str:
    """The annotation as its author wrote it, about."""
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__qualname__.rpartition("<locals>.")[2]
    return repr(annotation).replace("typing.", "")[:100]
