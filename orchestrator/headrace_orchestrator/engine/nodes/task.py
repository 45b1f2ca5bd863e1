"""A task: dispatched on entry; its output flows on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from headrace_broker.definitions import TaskCall
from headrace_broker.messages import ResultMessage, StartedMessage
from headrace_broker.records import Token
from headrace_orchestrator.engine import attempts
from headrace_orchestrator.engine.program import Inert
from headrace_orchestrator.engine.turn import Turn


class TaskSpec(NamedTuple):
    call: TaskCall


class TaskNode(Inert):
    def parse(self, params: Mapping[str, Any]) -> TaskSpec:
        return TaskSpec(TaskCall.from_wire(params["call"]))

    def enter(self, turn: Turn, id: int, token: Token) -> None:
        attempts.dispatch(turn, id, token, turn.node(token).spec.call, attempt=1)

    def on_result(self, turn: Turn, id: int, token: Token, result: ResultMessage) -> None:
        if result.outcome == "completed" and result.value is not None:
            slot = output_slot(token)
            turn.store(slot, result.value)
            token = attempts.completed(turn, id, token, result)
            turn.advance(id, token, slot)
        else:
            attempts.not_completed(turn, id, token, turn.node(token).spec.call, result)

    def on_started(self, turn: Turn, id: int, token: Token, started: StartedMessage) -> None:
        attempts.on_started(turn, id, token, turn.node(token).spec.call, started)

    def on_timer(self, turn: Turn, id: int, token: Token) -> None:
        attempts.on_timer(turn, id, token, turn.node(token).spec.call)


def output_slot(token: Token) -> str:
    """Where a node's output goes: one slot per node and frame, so that a loop overwrites its own."""
    return f"{token.node}.{token.frame}.{token.branch}" if token.frame else str(token.node)
