"""A bug in the engine that a test can put in, and mend."""

from __future__ import annotations

import pytest

from headrace_broker.messages import ResultMessage
from headrace_broker.records import Token
from headrace_orchestrator.engine.nodes.task import TaskNode
from headrace_orchestrator.engine.turn import Turn


class Poisoned:
    """Makes the engine fail on one node's result, and only there, while `fails`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, node: str) -> None:
        self.fails = True
        real = TaskNode.on_result

        def on_result(kind: TaskNode, turn: Turn, id: int, token: Token, result: ResultMessage) -> None:
            if self.fails and turn.node(token).name == node:
                raise ZeroDivisionError("a bug in the engine")
            real(kind, turn, id, token, result)

        monkeypatch.setattr(TaskNode, "on_result", on_result)
