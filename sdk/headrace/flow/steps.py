"""The steps of a flow as records: what the author said, with names relative to the scope they stand in.

Each kind says what its node is (`headrace_broker.definitions` has the table), which scopes lie inside it, how many
tokens it may hold at once, and what type flows out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from headrace.signals import Signal
from headrace_broker.values import Shape, Value

if TYPE_CHECKING:
    from headrace.tasks import AnyTask

    from .scope import Scope


class Inner(NamedTuple):
    """A scope inside a step. The names in it begin with `prefix`; `rejoins` if its end is the node after the step,
    else its end is the end of a branch."""

    prefix: str
    scope: Scope
    rejoins: bool


class Step(Protocol):
    """`own` is None for a step that is nothing but what it holds."""

    @property
    def name(self) -> str: ...

    own: ClassVar[str | None]
    """The kind of its node."""

    def inner(self) -> tuple[Inner, ...]: ...
    def task_of(self) -> AnyTask | None:
        """The task that its node calls."""
        ...

    def width(self) -> int: ...
    def params(self, firsts: tuple[int, ...]) -> Mapping[str, Any]:
        """The node's parameters; `firsts` has the first node of each inner scope."""
        ...

    def output(self, given: Any) -> Any:
        """The type that flows out when `given` flows in; `Any` if it cannot be known."""
        ...


@dataclass(frozen=True)
class TaskStep:
    name: str
    task: AnyTask
    own: ClassVar[str | None] = "task"

    def inner(self) -> tuple[Inner, ...]:
        return ()

    def task_of(self) -> AnyTask | None:
        return self.task

    def width(self) -> int:
        return 1

    def params(self, firsts: tuple[int, ...]) -> Mapping[str, Any]:
        return {"call": self.task.call().to_wire()}

    def output(self, given: Any) -> Any:
        return self.task.signature.returns()


@dataclass(frozen=True)
class DelayStep:
    name: str
    ms: int
    own: ClassVar[str | None] = "delay"

    def inner(self) -> tuple[Inner, ...]:
        return ()

    def task_of(self) -> AnyTask | None:
        return None

    def width(self) -> int:
        return 1

    def params(self, firsts: tuple[int, ...]) -> Mapping[str, Any]:
        return {"ms": self.ms}

    def output(self, given: Any) -> Any:
        return given


@dataclass(frozen=True)
class SignalStep:
    name: str
    signal: Signal[Any]
    timeout_ms: int
    default: Value | None
    on_timeout: Scope | None
    keep_input: bool
    own: ClassVar[str | None] = "signal"

    def inner(self) -> tuple[Inner, ...]:
        return () if self.on_timeout is None else (Inner(f"{self.name}/", self.on_timeout, True),)

    def task_of(self) -> AnyTask | None:
        return None

    def width(self) -> int:
        return 1 if self.on_timeout is None else self.on_timeout.width

    def params(self, firsts: tuple[int, ...]) -> Mapping[str, Any]:
        return {
            "signal": self.signal.name,
            "timeout_ms": self.timeout_ms,
            "on_timeout": firsts[0] if firsts else None,
            "default": self.default,
            "keep_input": self.keep_input,
        }

    def output(self, given: Any) -> Any:
        if self.default is not None or self.on_timeout is not None or self.keep_input:
            return Any
        return self.signal.payload_type


@dataclass(frozen=True)
class ForkStep:
    name: str
    branches: tuple[tuple[str, Scope], ...]
    shape: Shape
    own: ClassVar[str | None] = "fork"

    def inner(self) -> tuple[Inner, ...]:
        return tuple(Inner(f"{name}/", scope, False) for name, scope in self.branches)

    def task_of(self) -> AnyTask | None:
        return None

    def width(self) -> int:
        return sum(scope.width for _, scope in self.branches)

    def params(self, firsts: tuple[int, ...]) -> Mapping[str, Any]:
        names = (name for name, _ in self.branches)
        return {"branches": [[name, first] for name, first in zip(names, firsts, strict=True)], "shape": self.shape}

    def output(self, given: Any) -> Any:
        return dict[str, Any]


@dataclass(frozen=True)
class RouteStep:
    name: str
    task: AnyTask
    branches: tuple[tuple[str, Scope], ...]
    default: Scope | None
    own: ClassVar[str | None] = "route"

    def inner(self) -> tuple[Inner, ...]:
        scopes = tuple(Inner(f"{key}/", scope, True) for key, scope in self.branches)
        return scopes if self.default is None else (*scopes, Inner("default/", self.default, True))

    def task_of(self) -> AnyTask | None:
        return self.task

    def width(self) -> int:
        return max((inner.scope.width for inner in self.inner()), default=1)

    def params(self, firsts: tuple[int, ...]) -> Mapping[str, Any]:
        keys = (key for key, _ in self.branches)
        return {
            "call": self.task.call().to_wire(),
            "branches": dict(zip(keys, firsts, strict=False)),
            "default": firsts[-1] if self.default is not None else None,
        }

    def output(self, given: Any) -> Any:
        outputs = [inner.scope.output(given) for inner in self.inner()]
        return outputs[0] if outputs and all(each == outputs[0] for each in outputs) else Any


@dataclass(frozen=True)
class InlineStep:
    """A flow's steps in the place of a step."""

    name: str
    scope: Scope
    own: ClassVar[str | None] = None

    def inner(self) -> tuple[Inner, ...]:
        return (Inner(f"{self.name}/", self.scope, True),)

    def task_of(self) -> AnyTask | None:
        return None

    def width(self) -> int:
        return self.scope.width

    def params(self, firsts: tuple[int, ...]) -> Mapping[str, Any]:
        return {}

    def output(self, given: Any) -> Any:
        return self.scope.output(given)
