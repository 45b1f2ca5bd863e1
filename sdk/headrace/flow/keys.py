"""Route keys: what a router may answer, and how that is written on the wire.

On the wire a key is text, so that the orchestrator can read it: an enum member stands for its value, a bool is
`true` or `false`, an int its digits.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union

from headrace.names import LIMIT
from headrace_broker.errors import InvalidFlow

if TYPE_CHECKING:
    from headrace.tasks import AnyTask

Key = str | int | Enum
"""What `.branch(key, …)` takes; a bool is an int."""

_EXPECTED: Final = f"a text of 1 to {LIMIT} printable characters, an Enum member, a bool or an int"


def route_key(result: object, task: AnyTask) -> str | None:
    """The control fact for what `task` returned; None for a result that cannot be a key.

    Workers send it with every result that has one, for only the orchestrator knows whether the node is a route.
    There, a result without a key fails the step as `UnknownRoute`.
    """
    if isinstance(result, Enum):
        result = result.value
    if isinstance(result, str):
        return result if 0 < len(result) <= LIMIT else None
    if isinstance(result, bool):
        return "true" if result else "false"
    return str(result) if isinstance(result, int) and abs(result) < 2**63 else None


def wire_key(key: object) -> str:
    """A key that an author wrote, as text. Raises `InvalidFlow`."""
    plain = key.value if isinstance(key, Enum) else key
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if isinstance(plain, int):
        return str(plain)
    if isinstance(plain, str) and 0 < len(plain) <= LIMIT and plain.isprintable():
        return plain
    raise InvalidFlow(f"A route's key is {_EXPECTED}; got {key!r:.160}.")


def keys_of(router: AnyTask, given: Iterable[Any] | None) -> tuple[str, ...]:
    """Every key that `router` may answer, from `keys=` or else from its annotation. Raises `InvalidFlow`."""
    if isinstance(given, str | bytes):
        raise InvalidFlow(f"keys= is a list of keys; got the one text {given!r}. Write keys=[{given!r}, ...].")
    answers = list(given) if given is not None else _answers(router.signature.annotation("return"))
    if not answers:
        raise InvalidFlow(
            f"The keys of router {router.name!r} are unknown. Annotate what it returns with Literal[...], an Enum or "
            "bool, or pass keys=[...].",
            task=router.name,
        )
    keys = tuple(wire_key(answer) for answer in answers)
    for number, key in enumerate(keys):
        if key in keys[:number]:
            raise InvalidFlow(f"Router {router.name!r} has two keys that are both written {key!r}.", task=router.name)
    return keys


def _answers(annotation: Any) -> list[Any]:
    """The values an annotation lists; none if it does not list them."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return list(annotation)
    if annotation is bool:
        return [True, False]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return list(arguments)
    if origin is Annotated:
        return _answers(arguments[0])
    if origin in (Union, types.UnionType):
        parts = [_answers(argument) for argument in arguments]
        return [answer for part in parts for answer in part] if all(parts) else []
    return []
