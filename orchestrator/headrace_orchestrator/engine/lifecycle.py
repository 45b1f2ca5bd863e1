"""Start, cancel, failure: what happens to an instance as a whole."""

from __future__ import annotations

from headrace_broker import history, records, wire
from headrace_broker.instances import INPUT_SLOT
from headrace_broker.messages import CancelMessage, Failure, StartMessage
from headrace_broker.records import Token

from .model import Revoke
from .turn import Turn


def start(turn: Turn, message: StartMessage) -> None:
    """The instance's first token enters the first node with the input."""
    turn.record(history.STARTED, message.flow, message.definition, message.actor)
    turn.store(INPUT_SLOT, message.value)
    turn.new_token(turn.program.first, INPUT_SLOT)


def cancel(turn: Turn, message: CancelMessage) -> None:
    """Ends the instance at once: what is dispatched is revoked, what is parked is dropped."""
    turn.record(history.CANCEL_REQUESTED, message.reason, message.actor)
    for id, token in turn.draft.tokens():
        _stop(turn, id, token)
        turn.remove_token(id)
    turn.draft.error = wire.pack([message.reason])
    turn.end("cancelled", reason=message.reason)


def fail_step(turn: Turn, id: int, token: Token, failure: Failure) -> None:
    """The step failed for good, and with it the instance; siblings are stopped (fail fast).

    Tokens and frames stay, so that a later `retry` can go on from here (DESIGN 7).
    """
    for other_id, other in turn.draft.tokens():
        if other_id != id and other.phase not in (records.FAILED, records.STOPPED):
            _stop(turn, other_id, other)
            turn.park(other_id, other._replace(phase=records.STOPPED, dispatch="", timer=0, due=0))
    turn.park(id, token._replace(phase=records.FAILED, dispatch="", timer=0, due=0))
    node = turn.node(token).name
    turn.draft.error = wire.pack([failure.type, failure.message, failure.traceback, node])
    turn.end("failed", failure=failure)


def _stop(turn: Turn, id: int, token: Token) -> None:
    """Takes back what the token has outside: its timer and its delivery."""
    turn.drop_timer(id, token)
    if token.dispatch:
        turn.draft.revokes.append(Revoke(token.dispatch, turn.program.stream(token.node)))
