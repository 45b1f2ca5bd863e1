"""Definitions for engine tests, written as trees of steps and compiled without the SDK.

define(task("charge", retries=2), fork("both", left=[task("a")], right=[delay("d", "5s")]), task("settle"))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace_broker import values, wire
from headrace_broker.definitions import Definition, Node, RetrySpec, TaskCall
from headrace_broker.durations import Duration, parse_duration
from headrace_broker.keys import Isolation
from headrace_broker.values import Shape, Value


@dataclass(frozen=True)
class Step:
    """A node and the scopes inside it, by branch name. An empty name is filled in by `define`."""

    kind: str
    name: str
    params: Mapping[str, Any]
    inner: Mapping[str, Sequence[Step]] = field(default_factory=dict[str, "Sequence[Step]"])


def payload(value: object) -> Value:
    """A small value as a worker or client writes it."""
    return values.inline(wire.pack(value))


def task(
    name: str = "",
    *,
    retries: int | RetrySpec = 0,
    timeout: Duration = 0,
    queue: str = "default",
    isolation: Isolation = "thread",
) -> Step:
    return Step("task", name, {"call": _call(name, retries, timeout, queue, isolation)})


def delay(name: str, duration: Duration) -> Step:
    return Step("delay", name, {"ms": parse_duration(duration)})


def wait(
    name: str,
    signal: str,
    *,
    timeout: Duration = 0,
    default: object = None,
    on_timeout: Sequence[Step] = (),
    keep_input: bool = False,
) -> Step:
    params = {
        "signal": signal,
        "timeout_ms": parse_duration(timeout),
        "default": None if default is None else payload(default),
        "keep_input": keep_input,
    }
    return Step("signal", name, params, {"on_timeout": on_timeout} if on_timeout else {})


def fork(name: str, shape: Shape = "args", /, **branches: Sequence[Step]) -> Step:
    return Step("fork", name, {"shape": shape}, branches)


def route(name: str, retries: int = 0, /, **branches: Sequence[Step]) -> Step:
    """A branch called `default` takes what no other does."""
    return Step("route", name, {"call": _call(name, retries, 0, "default", "thread")}, branches)


def define(*steps: Step) -> Definition:
    """The steps as a definition that went over the wire."""
    nodes: list[Node] = []
    first = _scope(steps, None, nodes)
    assert first is not None
    return Definition.from_wire(Definition("story", tuple(nodes), first).wire)


def _call(name: str, retries: int | RetrySpec, timeout: Duration, queue: str, isolation: Isolation) -> list[Any]:
    retry = RetrySpec(max_retries=retries) if isinstance(retries, int) else retries
    return TaskCall(name or "task", queue, isolation, parse_duration(timeout), retry).to_wire()


def _scope(steps: Sequence[Step], after: int | None, nodes: list[Node]) -> int | None:
    """Appends the nodes of a scope, its last step first; the index of its first node."""
    for step in reversed(steps):
        end = None if step.kind == "fork" else after
        firsts = {key: _scope(inner, end, nodes) for key, inner in step.inner.items()}
        nodes.append(
            Node(step.kind, step.name or f"{step.kind}{len(nodes)}", after, {**step.params, **_into(step, firsts)})
        )
        after = len(nodes) - 1
    return after


def _into(step: Step, firsts: dict[str, int | None]) -> dict[str, Any]:
    match step.kind:
        case "fork":
            return {"branches": [[key, first] for key, first in firsts.items()]}
        case "route":
            default = firsts.pop("default", None)
            return {"branches": firsts, "default": default}
        case "signal":
            return {"on_timeout": firsts.get("on_timeout")}
        case _:
            return {}
