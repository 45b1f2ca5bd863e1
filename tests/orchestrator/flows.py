"""Small definitions, written by hand: these tests need no SDK."""

from __future__ import annotations

from typing import Any

from headrace_broker.definitions import Definition, Node, RetrySpec, TaskCall
from headrace_broker.values import Value


def task(name: str, next: int | None, **call: Any) -> Node:
    return Node("task", name, next, {"call": TaskCall(name, **call).to_wire()})


def retrying(name: str, next: int | None, retries: int, initial_ms: int = 10, **call: Any) -> Node:
    return task(name, next, retry=RetrySpec(retries, initial_ms), **call)


def delay(name: str, next: int | None, ms: int) -> Node:
    return Node("delay", name, next, {"ms": ms})


def wait(
    name: str,
    next: int | None,
    timeout_ms: int = 0,
    on_timeout: int | None = None,
    default: Value | None = None,
    keep_input: bool = False,
) -> Node:
    """A wait for the signal of the same name."""
    params = {
        "signal": name,
        "timeout_ms": timeout_ms,
        "on_timeout": on_timeout,
        "default": default,
        "keep_input": keep_input,
    }
    return Node("signal", name, next, params)


def fork(name: str, next: int | None, **branches: int) -> Node:
    return Node(
        "fork", name, next, {"branches": [[branch, first] for branch, first in branches.items()], "shape": "args"}
    )


def route(name: str, next: int | None, default: int | None = None, **branches: int) -> Node:
    return Node("route", name, next, {"call": TaskCall(name).to_wire(), "branches": branches, "default": default})


def chain(*names: str, flow: str = "chain", **call: Any) -> Definition:
    last = len(names) - 1
    return Definition(flow, tuple(task(name, i + 1 if i < last else None, **call) for i, name in enumerate(names)))


def single(**call: Any) -> Definition:
    return chain("a", **call)
