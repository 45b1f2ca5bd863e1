"""How a task's function wants to be called: which parameters take the value, which take the context.

Annotations may be text (`from __future__ import annotations`) and may name what does not exist yet, so each is resolved
when it is needed. What can be known when the task is made is checked then.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple, Union, cast

from headrace_broker.errors import InvalidTask

from .context import TaskContext

_CONTEXT_TEXT: Final = re.compile(
    r"(?:typing\.)?(?:Optional\[)?(?:\w+\.)*TaskContext\]?(?: *\| *None)?|None *\| *(?:\w+\.)*TaskContext"
)
_FAILURES: Final = (NameError, SyntaxError, TypeError, AttributeError)


class Parameter(NamedTuple):
    name: str
    kind: Any
    """One of the kinds of `inspect.Parameter`."""
    default: Any
    required: bool
    is_context: bool


class Signature:
    """The parameters of one task's function."""

    def __init__(self, fn: Callable[..., Any], label: str, namespace: Mapping[str, Any] | None = None) -> None:
        """`label` begins the sentence of an error. `namespace`: names that are only visible where the task is made,
        such as classes inside a function; not kept.

        Raises `InvalidTask`.
        """
        self.label = label
        self._globals = _globals_of(fn)
        self._resolved: dict[str, Any] = {}
        try:
            signature = inspect.signature(fn)
        except (TypeError, ValueError):
            raise InvalidTask(f"{label} has no signature that can be read. Wrap it in a def of its own.") from None
        self._raw: dict[str, Any] = {name: each.annotation for name, each in signature.parameters.items()}
        self._raw["return"] = signature.return_annotation
        self._resolve_now(namespace)
        self.parameters = tuple(self._parameter(each) for each in signature.parameters.values() if _takes(each, label))

    @functools.cached_property
    def values(self) -> tuple[Parameter, ...]:
        """The parameters that take what flows in, in order."""
        return tuple(each for each in self.parameters if not each.is_context)

    @functools.cached_property
    def extra(self) -> tuple[Parameter, ...]:
        """Parameters after the first that only a join can fill."""
        return tuple(each for each in self.values[1:] if each.required)

    def annotation(self, name: str) -> Any:
        """The resolved annotation of a parameter, or of `return`; `Any` without one.

        Raises `InvalidTask` if it names what cannot be found.
        """
        if name not in self._resolved:
            try:
                self._resolved[name] = _resolve(self._raw[name], self._globals, None)
            except _FAILURES as error:
                where = "return value" if name == "return" else f"parameter {name!r}"
                raise InvalidTask(
                    f"{self.label}: the annotation {_shown(self._raw[name])!r} of its {where} cannot be resolved "
                    f"({error}). What it names must exist at module level when the task first runs, and not only under "
                    "TYPE_CHECKING."
                ) from None
        return self._resolved[name]

    def returns(self) -> Any:
        """What the task returns as far as can be known: `Any` without an annotation, or with one that is unresolved."""
        try:
            return self.annotation("return")
        except InvalidTask:
            return Any

    def check(self) -> None:
        """Raises `InvalidTask` unless every annotation that a call needs can be resolved."""
        for each in self.values:
            self.annotation(each.name)

    def _resolve_now(self, namespace: Mapping[str, Any] | None) -> None:
        for name, raw in self._raw.items():
            try:
                self._resolved[name] = _resolve(raw, self._globals, namespace)
            except _FAILURES:
                continue  # tried again when it is needed; until then it may come to exist

    def _parameter(self, given: inspect.Parameter) -> Parameter:
        raw = given.annotation
        if given.name in self._resolved:
            is_context = _is_context(self._resolved[given.name])
        else:
            is_context = isinstance(raw, str) and _CONTEXT_TEXT.fullmatch(raw.strip()) is not None
        required = given.default is inspect.Parameter.empty
        if given.kind is inspect.Parameter.KEYWORD_ONLY and required and not is_context:
            raise InvalidTask(
                f"{self.label} has the keyword-only parameter {given.name!r} without a default, and nothing to fill it "
                "with. A task takes one value (the branches' outputs if it joins) and a TaskContext: give it a "
                "default, or move it before the *."
            )
        return Parameter(given.name, given.kind, given.default, required, is_context)


def _takes(given: inspect.Parameter, label: str) -> bool:
    if given.kind is inspect.Parameter.VAR_POSITIONAL:
        raise InvalidTask(
            f"{label} takes *{given.name}, so it does not say what it needs. Name its parameters: one for the value "
            "that flows in, and ctx: TaskContext if wanted. (A decorator under @task should use functools.wraps.)"
        )
    return given.kind is not inspect.Parameter.VAR_KEYWORD


def _is_context(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _is_context(typing.get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return any(_is_context(each) for each in typing.get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, TaskContext)


class _Holder:
    """Carries one annotation to `get_type_hints`, so that one that fails does not hide the others."""

    def __init__(self, raw: Any) -> None:
        self.__annotations__ = {"it": raw}


def _resolve(raw: Any, names: dict[str, Any], namespace: Mapping[str, Any] | None) -> Any:
    if raw is inspect.Parameter.empty:
        return Any
    local = dict(namespace) if namespace is not None else names
    return typing.get_type_hints(_Holder(raw), names, local, include_extras=True)["it"]


def _shown(raw: Any) -> str:
    return raw.strip("'\"") if isinstance(raw, str) else str(raw)


def _globals_of(fn: Callable[..., Any]) -> dict[str, Any]:
    found: Any = inspect.unwrap(fn)
    while isinstance(found, functools.partial):
        found = inspect.unwrap(cast(Any, found).func)
    if not hasattr(found, "__globals__"):
        found = getattr(found, "__call__", None)  # noqa: B004  # its method, not whether it has one
    return cast("dict[str, Any]", getattr(found, "__globals__", {}))
