"""A scope: steps in a row, of a flow or of a branch. Immutable; adding a step checks what spans the steps."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from headrace_broker.definitions import MAX_WIDTH
from headrace_broker.errors import InvalidFlow

from .steps import Step

if TYPE_CHECKING:
    from headrace.tasks import AnyTask


@dataclass(frozen=True, eq=False)
class Scope:
    """`names` has every node in it, as it is called in the definition but for the prefix of this scope; `tasks` every
    task by name."""

    flow: str
    steps: tuple[Step, ...] = ()
    names: frozenset[str] = frozenset()
    tasks: Mapping[str, AnyTask] = field(default_factory=lambda: MappingProxyType({}))

    def add(self, step: Step) -> Scope:
        """A scope with one more step. Raises `InvalidFlow`."""
        names = set(self.names)
        for name in _names(step):
            if name in names:
                raise InvalidFlow(
                    f"Flow {self.flow!r} has two nodes named {name!r}, and a name is unique in a flow. Give one of "
                    f'them another: name="{name.rpartition("/")[2]}_2" at its step, or another name for its branch.',
                    flow=self.flow,
                    node=name,
                )
            names.add(name)
        if step.width() > MAX_WIDTH:
            raise InvalidFlow(
                f"Flow {self.flow!r}: {step.name!r} runs {step.width()} branches at once, those inside its branches "
                f"included; at most {MAX_WIDTH} are possible.",
                flow=self.flow,
                node=step.name,
            )
        return Scope(self.flow, (*self.steps, step), frozenset(names), self._with_tasks(step))

    def free_name(self, stem: str) -> str:
        """`stem`, or the first of `stem-2`, `stem-3` … that no node has."""
        name, number = stem, 1
        while name in self.names:
            number += 1
            name = f"{stem}-{number}"
        return name

    @functools.cached_property
    def size(self) -> int:
        """Nodes in it, those of inner scopes included."""
        return len(self.names)

    @functools.cached_property
    def width(self) -> int:
        """The most tokens it may hold at once in one instance."""
        return max((step.width() for step in self.steps), default=1)

    def output(self, given: Any) -> Any:
        """The type that flows out when `given` flows in; `Any` if it cannot be known."""
        return functools.reduce(lambda flowing, step: step.output(flowing), self.steps, given)

    def _with_tasks(self, step: Step) -> Mapping[str, AnyTask]:
        tasks = dict(self.tasks)
        for task in _tasks(step):
            known = tasks.setdefault(task.name, task)
            if not known.same_as(task):
                raise InvalidFlow(
                    f"Flow {self.flow!r} has two different tasks named {task.name!r}: {known.where} and {task.where}. "
                    "Give one of them another name: @task(name=...).",
                    flow=self.flow,
                    task=task.name,
                )
        return MappingProxyType(tasks)


def _names(step: Step) -> Iterator[str]:
    if step.own is not None:
        yield step.name
    for inner in step.inner():
        for name in sorted(inner.scope.names):
            yield inner.prefix + name


def _tasks(step: Step) -> Iterator[AnyTask]:
    task = step.task_of()
    if task is not None:
        yield task
    for inner in step.inner():
        yield from inner.scope.tasks.values()
