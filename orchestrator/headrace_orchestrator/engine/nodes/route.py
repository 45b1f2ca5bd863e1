"""A route: its key task is called like any task; the key it decided, once for ever, picks the branch.

The branch gets the router's input. Branches end at the node after the route, so a route needs no frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from headrace_broker import history
from headrace_broker.definitions import TaskCall
from headrace_broker.messages import Failure, ResultMessage
from headrace_broker.records import Token
from headrace_orchestrator.engine import attempts
from headrace_orchestrator.engine.lifecycle import fail_step
from headrace_orchestrator.engine.turn import Turn

from .task import TaskNode


class RouteSpec(NamedTuple):
    call: TaskCall
    branches: Mapping[str, int]
    default: int | None


class Route(TaskNode):
    def parse(self, params: Mapping[str, Any]) -> RouteSpec:  # type: ignore[override]
        branches = {str(key): int(first) for key, first in cast(Mapping[str, int], params["branches"]).items()}
        return RouteSpec(TaskCall.from_wire(params["call"]), branches, params.get("default"))

    def on_result(self, turn: Turn, id: int, token: Token, result: ResultMessage) -> None:
        spec: RouteSpec = turn.node(token).spec
        if result.outcome != "completed":
            attempts.not_completed(turn, id, token, spec.call, result)
            return
        key = result.route
        first = spec.default if key is None else spec.branches.get(key, spec.default)
        token = attempts.completed(turn, id, token, result)
        turn.discard(result.value)
        if first is None:
            known = ", ".join(repr(name) for name in spec.branches)
            came = "no key" if key is None else f"the key {key!r}"
            fail_step(turn, id, token, Failure("UnknownRoute", f"The router gave {came}; its branches are {known}."))
            return
        turn.record(history.ROUTED, token.node, token.frame, token.branch, key)
        turn.goto(id, token, first, token.slot)
