"""A route while it is written: a branch for each key, then `.end_route()`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from headrace.tasks import AnyTask
from headrace_broker.errors import InvalidFlow

from .inputs import Unfinished, branch_scope
from .keys import wire_key
from .protocols import Step
from .scope import Scope
from .steps import RouteStep

if TYPE_CHECKING:
    from .builder import Flow

In = TypeVar("In")
Out = TypeVar("Out")
K = TypeVar("K")
R = TypeVar("R")
B = TypeVar("B")


class Route(Unfinished, Generic[In, Out, K, R]):
    """One of several branches runs, on what flowed into the route: the one whose key the router answers."""

    what = "route"
    end = ".end_route()"

    def __init__(
        self,
        scope: Scope,
        step: RouteStep,
        keys: tuple[str, ...],
        finish: Callable[[Scope], Flow[Any, Any]],
    ) -> None:
        """`keys`: all that the router may answer. `finish` makes the flow that goes on from a scope."""
        super().__init__(scope, step.name)
        self._step = step
        self._keys = keys
        self._finish = finish

    @overload
    def branch(self, key: K, step: Step[Out, B]) -> Route[In, Out, K, R | B]: ...
    @overload
    def branch(self, key: K, step: Callable[[Out], Awaitable[B]]) -> Route[In, Out, K, R | B]: ...
    @overload
    def branch(self, key: K, step: Callable[[Out], B]) -> Route[In, Out, K, R | B]: ...
    def branch(self, key: Any, step: Any) -> Any:
        """What runs if the router answers `key`: a task or a flow. Its nodes are called `<key>/…`.

        Raises `InvalidFlow` and `InvalidTask`.
        """
        flow, written = self._scope.flow, wire_key(key)
        if written not in self._keys:
            raise InvalidFlow(
                f"Router {self._task.name!r} of flow {flow!r} never answers {written!r}; it answers "
                f"{_list(self._keys)}.",
                flow=flow,
            )
        if written in (known for known, _ in self._step.branches):
            raise InvalidFlow(f"Route {self._name!r} of flow {flow!r} has two branches for {written!r}.", flow=flow)
        scope = branch_scope(step, flow=flow, use=f".branch({key!r})")
        return self._with((*self._step.branches, (written, scope)), self._step.default)

    @overload
    def default_branch(self, step: Step[Out, B]) -> Route[In, Out, K, R | B]: ...
    @overload
    def default_branch(self, step: Callable[[Out], Awaitable[B]]) -> Route[In, Out, K, R | B]: ...
    @overload
    def default_branch(self, step: Callable[[Out], B]) -> Route[In, Out, K, R | B]: ...
    def default_branch(self, step: Any) -> Any:
        """What runs for every key that has no branch. Its nodes are called `default/…`.

        Raises `InvalidFlow` and `InvalidTask`.
        """
        flow = self._scope.flow
        if self._step.default is not None:
            raise InvalidFlow(f"Route {self._name!r} of flow {flow!r} has two default branches.", flow=flow)
        return self._with(self._step.branches, branch_scope(step, flow=flow, use=".default_branch()"))

    def end_route(self) -> Flow[In, R]:
        """Ends the route. What the branch gave flows on. Raises `InvalidFlow` if a key has no branch."""
        flow = self._scope.flow
        taken = [key for key, _ in self._step.branches]
        missing = [key for key in self._keys if key not in taken]
        if missing and self._step.default is None:
            raise InvalidFlow(
                f"Route {self._name!r} of flow {flow!r} has no branch for {_list(missing)}, which router "
                f"{self._task.name!r} may answer. Add .branch({missing[0]!r}, ...) or .default_branch(...).",
                flow=flow,
            )
        return self._finish(self._scope.add(self._step))

    @property
    def _task(self) -> AnyTask:
        return self._step.task

    def _with(self, branches: tuple[tuple[str, Scope], ...], default: Scope | None) -> Route[Any, Any, Any, Any]:
        step = RouteStep(self._name, self._step.task, branches, default)
        self._scope.add(step)  # names and tasks, while the call is at hand
        return Route(self._scope, step, self._keys, self._finish)


def _list(keys: list[str] | tuple[str, ...]) -> str:
    return ", ".join(map(repr, keys))
