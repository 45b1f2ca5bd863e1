"""A delay: a timer on entry; the input flows through when it fires."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from headrace_broker import history, records
from headrace_broker.records import Token
from headrace_orchestrator.engine.program import Inert
from headrace_orchestrator.engine.turn import Turn


class DelaySpec(NamedTuple):
    ms: int


class Delay(Inert):
    def parse(self, params: Mapping[str, Any]) -> DelaySpec:
        return DelaySpec(int(params["ms"]))

    def enter(self, turn: Turn, id: int, token: Token) -> None:
        due = turn.now + turn.node(token).spec.ms
        turn.park(id, turn.set_timer(id, token._replace(phase=records.SLEEPING), due))
        turn.record(history.TIMER_STARTED, token.node, token.frame, token.branch, due)

    def on_timer(self, turn: Turn, id: int, token: Token) -> None:
        turn.record(history.TIMER_FIRED, token.node, token.frame, token.branch)
        turn.advance(id, token._replace(timer=0, due=0), token.slot)
