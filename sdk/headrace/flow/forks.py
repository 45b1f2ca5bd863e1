"""A fork while it is written: branches, then the join."""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, TypeVarTuple, overload

from headrace.context import TaskContext
from headrace.names import check_name
from headrace.tasks import AnyTask, as_task
from headrace_broker.errors import InvalidFlow, InvalidTask
from headrace_broker.values import Shape

from .inputs import Unfinished, branch_scope, refuse_unfinished
from .protocols import JoinStep, Step
from .scope import Scope
from .steps import ForkStep, TaskStep

if TYPE_CHECKING:
    from .builder import Flow

In = TypeVar("In")
Out = TypeVar("Out")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

_DICTS: Final = (Any, object, dict, Mapping, MutableMapping)


class Fork(Unfinished, Generic[In, Out, *Ts]):
    """Branches that run in parallel, each on what flows into the fork. `.join()` ends it."""

    what = "fork"
    end = ".join(...)"

    def __init__(
        self,
        scope: Scope,
        name: str,
        finish: Callable[[Scope], Flow[Any, Any]],
        branches: tuple[tuple[str, Scope], ...] = (),
    ) -> None:
        """`finish` makes the flow that goes on from a scope."""
        super().__init__(scope, name)
        self._finish = finish
        self._branches = branches

    @overload
    def branch(self, name: str, step: Step[Out, R]) -> Fork[In, Out, *Ts, R]: ...
    @overload
    def branch(self, name: str, step: Callable[[Out], Awaitable[R]]) -> Fork[In, Out, *Ts, R]: ...
    @overload
    def branch(self, name: str, step: Callable[[Out], R]) -> Fork[In, Out, *Ts, R]: ...
    def branch(self, name: str, step: Any) -> Any:
        """One more branch: a task or a flow. Its nodes are called `<name>/…`.

        Raises `InvalidFlow` and `InvalidTask`.
        """
        flow = self._scope.flow
        check_name(f"A branch of fork {self._name!r} in flow {flow!r}", name, InvalidFlow)
        if name in (known for known, _ in self._branches):
            raise InvalidFlow(f"Fork {self._name!r} of flow {flow!r} has two branches named {name!r}.", flow=flow)
        scope = branch_scope(step, flow=flow, use=f".branch({name!r})")
        branches = (*self._branches, (name, scope))
        self._scope.add(ForkStep(self._name, branches, "dict"))  # names, tasks and width, while the call is at hand
        forked: Fork[Any, Any, *tuple[Any, ...]] = Fork(self._scope, self._name, self._finish, branches)
        return forked

    @overload
    def join(self) -> Flow[In, dict[str, Any]]: ...
    @overload
    def join(self, fn: JoinStep[dict[str, Any], R], *, name: str | None = None) -> Flow[In, R]: ...
    @overload
    def join(self, fn: JoinStep[*Ts, R], *, name: str | None = None) -> Flow[In, R]: ...
    @overload
    def join(self, fn: JoinStep[*Ts, TaskContext, R], *, name: str | None = None) -> Flow[In, R]: ...
    @overload
    def join(self, fn: Callable[[*Ts], Awaitable[R]], *, name: str | None = None) -> Flow[In, R]: ...
    @overload
    def join(self, fn: Callable[[*Ts], R], *, name: str | None = None) -> Flow[In, R]: ...
    def join(self, fn: Any = None, *, name: str | None = None) -> Flow[Any, Any]:
        """Ends the fork. `fn` gets the branches' outputs, as arguments that match the branches in name and order, or as
        one dict; without it the dict flows on.

        Raises `InvalidFlow` and `InvalidTask`.
        """
        flow = self._scope.flow
        if not self._branches:
            raise InvalidFlow(
                f"Fork {self._name!r} of flow {flow!r} has no branches. Add .branch(name, step).", flow=flow
            )
        if fn is None:
            if name is not None:
                raise InvalidFlow(f".join(name={name!r}) of flow {flow!r} has no function to name.", flow=flow)
            return self._finish(self._scope.add(ForkStep(self._name, self._branches, "dict")))
        refuse_unfinished(fn, flow, ".join()")
        task = as_task(fn, name=name, use=f".join() of flow {flow!r}")
        shape: Shape = "args" if self._matches(task) else "dict"
        forked = self._scope.add(ForkStep(self._name, self._branches, shape))
        node = check_name(f"A node of flow {flow!r}", task.name if name is None else name, InvalidFlow)
        return self._finish(forked.add(TaskStep(node, task)))

    def _matches(self, task: AnyTask) -> bool:
        """Whether the parameters are the branches; False if it takes one dict. Raises `InvalidFlow`."""
        wanted = [name for name, _ in self._branches]
        values = task.signature.values
        names = [each.name for each in values]
        if names == wanted or (
            names[: len(wanted)] == wanted and not any(each.required for each in values[len(wanted) :])
        ):
            return True
        if values and not task.signature.extra and _takes_dict(task, values[0].name):
            return False
        hint = " They are in another order." if sorted(names) == sorted(wanted) else ""
        raise InvalidFlow(
            f"Join {task.name!r} of flow {self._scope.flow!r} takes ({', '.join(names)}); the branches are "
            f"({', '.join(wanted)}).{hint} Name its parameters after the branches, in their order, or take one dict.",
            flow=self._scope.flow,
            task=task.name,
        )


def _takes_dict(task: AnyTask, parameter: str) -> bool:
    try:
        annotation = task.signature.annotation(parameter)
    except InvalidTask:
        return True  # cannot be known yet; the worker validates
    return (typing.get_origin(annotation) or annotation) in _DICTS or typing.is_typeddict(annotation)
