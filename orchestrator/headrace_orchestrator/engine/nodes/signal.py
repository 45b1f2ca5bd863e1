"""A wait for a signal: takes a buffered payload at once, else waits, with a time-out if the author gave one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from headrace_broker import history, records
from headrace_broker.messages import Failure
from headrace_broker.records import Token
from headrace_broker.values import Value
from headrace_orchestrator.engine import signals
from headrace_orchestrator.engine.lifecycle import fail_step
from headrace_orchestrator.engine.program import Inert
from headrace_orchestrator.engine.turn import Turn

from .task import output_slot


class SignalSpec(NamedTuple):
    """`timeout_ms` 0: none. On time-out `default` flows on, or `on_timeout` is entered with the wait's input."""

    signal: str
    timeout_ms: int
    on_timeout: int | None
    default: Value | None
    keep_input: bool


class WaitForSignal(Inert):
    def parse(self, params: Mapping[str, Any]) -> SignalSpec:
        return SignalSpec(
            str(params["signal"]),
            int(params.get("timeout_ms", 0)),
            params.get("on_timeout"),
            params.get("default"),
            bool(params.get("keep_input", False)),
        )

    def enter(self, turn: Turn, id: int, token: Token) -> None:
        spec: SignalSpec = turn.node(token).spec
        slot = signals.take(turn, spec.signal)
        if slot is not None:
            self._taken(turn, id, token, slot)
            return
        token = token._replace(phase=records.AWAITING, place=signals.wait(turn, id, spec.signal))
        if spec.timeout_ms:
            token = turn.set_timer(id, token, turn.now + spec.timeout_ms)
        turn.park(id, token)
        turn.record(history.SIGNAL_AWAITED, token.node, token.frame, token.branch, spec.signal, token.due)

    def on_signal(self, turn: Turn, id: int, token: Token, slot: str) -> None:
        self._taken(turn, id, turn.drop_timer(id, token), slot)

    def on_timer(self, turn: Turn, id: int, token: Token) -> None:
        spec: SignalSpec = turn.node(token).spec
        signals.leave(turn, token.place, spec.signal)
        turn.record(history.SIGNAL_TIMED_OUT, token.node, token.frame, token.branch, spec.signal)
        token = token._replace(timer=0, due=0)
        if spec.on_timeout is not None:
            turn.goto(id, token, spec.on_timeout, token.slot)
        elif spec.default is not None:
            slot = output_slot(token)
            turn.store(slot, spec.default)
            turn.advance(id, token, slot)
        else:
            failure = Failure("SignalTimeout", f"Signal {spec.signal!r} did not come within {spec.timeout_ms} ms.")
            fail_step(turn, id, token, failure)

    def _taken(self, turn: Turn, id: int, token: Token, slot: str) -> None:
        spec: SignalSpec = turn.node(token).spec
        turn.record(history.SIGNAL_TAKEN, token.node, token.frame, token.branch, spec.signal)
        if spec.keep_input:
            pair = output_slot(token)
            turn.store_composite(pair, "pair", [], [token.slot, slot])
            slot = pair
        turn.advance(id, token, slot)
