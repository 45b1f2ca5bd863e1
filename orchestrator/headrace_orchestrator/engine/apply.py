"""Which event goes where. The engine's front door: `apply(draft, program, event, context)`."""

from __future__ import annotations

from typing import NamedTuple

from headrace_broker.instances import ENDED
from headrace_broker.messages import CancelMessage, ResultMessage, SignalMessage, StartedMessage, StartMessage

from . import lifecycle, signals
from .model import Context, Draft
from .program import Program
from .turn import Turn


class TimerFired(NamedTuple):
    """A timer of the instance is due. It counts if the token still holds that number (invariant 2)."""

    token: int
    number: int


Event = StartMessage | ResultMessage | StartedMessage | SignalMessage | CancelMessage | TimerFired
"""Messages are events as they come; their `instance` and incarnation were checked by whoever loaded the instance."""


def apply(draft: Draft, program: Program, event: Event, context: Context) -> None:
    """Makes the draft what the instance is after the event. Pure but for the draft and the context's dispatch numbers.

    An event that no longer counts (invariant 2) leaves a draft with nothing to commit but a counted refusal.
    """
    turn = Turn(draft, program, context)
    if draft.status in ENDED:
        if isinstance(event, (ResultMessage, SignalMessage, StartMessage)):
            turn.refuse(event.value)
        return
    match event:
        case ResultMessage():
            _on_result(turn, event)
        case TimerFired():
            _on_timer(turn, event)
        case StartMessage():
            if draft.status == "queued":
                lifecycle.start(turn, event)
        case StartedMessage():
            _on_started(turn, event)
        case SignalMessage():
            signals.receive(turn, event)
        case CancelMessage():
            lifecycle.cancel(turn, event)
    turn.run()
    settle_status(turn)
    draft.seal()


def _on_result(turn: Turn, result: ResultMessage) -> None:
    token = turn.draft.token(result.token)
    if token is None or token.dispatch != result.dispatch:
        turn.refuse(result.value)
    else:
        turn.node(token).kind.on_result(turn, result.token, token, result)


def _on_started(turn: Turn, started: StartedMessage) -> None:
    token = turn.draft.token(started.token)
    if token is not None and token.dispatch == started.dispatch:
        turn.node(token).kind.on_started(turn, started.token, token, started)


def _on_timer(turn: Turn, timer: TimerFired) -> None:
    token = turn.draft.token(timer.token)
    if token is None or not timer.number or token.timer != timer.number:
        return
    turn.node(token).kind.on_timer(turn, timer.token, token)


def settle_status(turn: Turn) -> None:
    """`running` while anything is handed out, else `waiting`; `queued` until the start was applied."""
    draft = turn.draft
    if draft.status in ENDED or (draft.status == "queued" and not draft.counters.steps > 1):
        return
    status = "running" if draft.counters.active else "waiting"
    if draft.status != status:
        draft.header["status"] = status
