"""From the value that flows in to the arguments of a task's function. Runs in workers, for each attempt."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Final

from headrace_broker.errors import PayloadMismatch
from headrace_broker.values import Value

from .context import TaskContext
from .signature import Signature

_KEYWORD_ONLY: Final = inspect.Parameter.KEYWORD_ONLY
_CHANGED: Final = "Was it changed while the instance ran?"


def bind(task: str, signature: Signature, value: Value, context: TaskContext) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments. Raises `PayloadMismatch` and `InvalidTask`."""
    taken = _taken(task, signature, value)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for name, kind, default, _, is_context in signature.parameters:
        argument = context if is_context else taken.get(name, default)
        if kind is _KEYWORD_ONLY:
            kwargs[name] = argument
        else:
            args.append(argument)
    return tuple(args), kwargs


def _taken(task: str, signature: Signature, value: Value) -> dict[str, Any]:
    """What the parameters that take the value get, by name."""
    from headrace_broker import payloads  # late: it brings the connection, which authors' modules can do without

    accepted = signature.values
    if not accepted:
        return {}
    parts = payloads.arguments(value) if value[:1] == b"c" else None
    first = accepted[0].name
    if parts is None or (len(accepted) == 1 and first not in parts):
        if signature.extra:
            raise PayloadMismatch(
                f"Task {task!r} takes {_list(signature)}, the outputs of a join; it got one value. {_CHANGED}",
                task=task,
                parameter=signature.extra[0].name,
            )
        return {first: _load(payloads.load, task, signature, first, value)}
    _check_parts(task, signature, parts.keys())
    return {name: _load(payloads.load, task, signature, name, part) for name, part in parts.items()}


def _check_parts(task: str, signature: Signature, given: Iterable[str]) -> None:
    got = list(given)
    names = [each.name for each in signature.values]
    wrong = [each.name for each in signature.values if each.required and each.name not in got]
    wrong += [name for name in got if name not in names]
    if wrong:
        raise PayloadMismatch(
            f"Task {task!r} takes {_list(signature)}; the join gave it {', '.join(got)}. {_CHANGED}",
            task=task,
            parameter=wrong[0],
        )


def _load(load: Any, task: str, signature: Signature, name: str, value: Value) -> Any:
    annotation = signature.annotation(name)
    try:
        return load(value, annotation)
    except PayloadMismatch as error:
        shown = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        raise PayloadMismatch(
            f"Task {task!r}, parameter {name!r} ({shown}): {error}", task=task, parameter=name
        ) from error


def _list(signature: Signature) -> str:
    return ", ".join(each.name for each in signature.values)
