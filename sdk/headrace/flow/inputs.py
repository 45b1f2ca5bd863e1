"""From what an author passes to the builder to scopes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.tasks import AnyTask, as_task
from headrace_broker.errors import InvalidFlow

from .scope import Scope
from .steps import TaskStep


class Steps:
    """The base of `Flow`: something with a scope, that can stand where a step can."""

    def __init__(self, name: str, scope: Scope) -> None:
        self.name = name
        self.scope = scope


def value_task(given: object, *, flow: str, use: str, name: str | None = None) -> AnyTask:
    """A task that takes the one value that flows in. Raises `InvalidTask` and `InvalidFlow`."""
    refuse_unfinished(given, flow, use)
    if isinstance(given, Steps):
        raise InvalidFlow(
            f"{use} of flow {flow!r} takes a task; got flow {given.name!r}. Put its steps here with .then_flow(...).",
            flow=flow,
        )
    task = as_task(given, name=name, use=f"{use} of flow {flow!r}")
    if task.signature.extra:
        names = ", ".join(each.name for each in task.signature.values)
        raise InvalidFlow(
            f"Task {task.name!r} takes {names}, and in {use} of flow {flow!r} one value flows in. Only a join fills "
            "several parameters: put them into one model, or give the others defaults.",
            flow=flow,
            task=task.name,
        )
    return task


def branch_scope(given: object, *, flow: str, use: str) -> Scope:
    """The steps of a flow, or one task as a scope of its own. Raises `InvalidTask` and `InvalidFlow`."""
    if isinstance(given, Steps):
        return inner_scope(given, flow=flow, use=use)
    task = value_task(given, flow=flow, use=use)
    return Scope(flow).add(TaskStep(task.name, task))


def inner_scope(given: object, *, flow: str, use: str) -> Scope:
    """The steps of a flow. Raises `InvalidFlow`."""
    refuse_unfinished(given, flow, use)
    if not isinstance(given, Steps):
        raise InvalidFlow(f"{use} of flow {flow!r} takes a flow; got {given!r:.80}.", flow=flow)
    if not given.scope.steps:
        raise InvalidFlow(f"{use} of flow {flow!r} got flow {given.name!r}, which has no steps.", flow=flow)
    return given.scope


class _NotEnded(InvalidFlow, AttributeError):
    """An attribute error too, so that `hasattr` answers."""


class Unfinished:
    """The base of a fork before `.join()` and a route before `.end_route()`."""

    what: str
    end: str

    def __init__(self, scope: Scope, name: str) -> None:
        self._scope = scope
        self._name = name

    if not TYPE_CHECKING:  # a checker would take every attribute for granted

        def __getattr__(self, attribute: str) -> Any:
            if attribute.startswith("_"):
                raise AttributeError(attribute)
            raise _NotEnded(
                f"Flow {self._scope.flow!r}: .{attribute} after .{self.what}(). A {self.what} takes .branch(...) until "
                f"{self.end} ends it; only then the flow goes on.",
                flow=self._scope.flow,
            )


def refuse_unfinished(given: object, flow: str, use: str) -> None:
    if isinstance(given, Unfinished):
        raise InvalidFlow(
            f"{use} of flow {flow!r} got a {given.what} that is not ended. Call {given.end} first.", flow=flow
        )
