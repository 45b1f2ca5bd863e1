"""Attempts of a task call: dispatch, retry, time-out, loss. Used by every node kind that calls a task.

The rules are DESIGN 7's (retry policy, time-outs) and 8's (losses): a failure spends an attempt, a loss does not; what
was handed back spends neither. Losses count towards `max_deliveries` only once the task ran alone in its child, so no
innocent dies with a guilty neighbour.
"""

from __future__ import annotations

from zlib import crc32

from headrace_broker import history, records
from headrace_broker.definitions import RetrySpec, TaskCall
from headrace_broker.messages import Failure, ResultMessage, StartedMessage
from headrace_broker.records import Token

from .lifecycle import fail_step
from .model import Dispatch, Revoke
from .turn import Turn

LOSSES_BEFORE_ALONE = 2
"""After this many losses a task runs alone in a child; only later ones count towards `max_deliveries` (DESIGN 8)."""

UNKNOWN_TASK = RetrySpec(initial_ms=1000, backoff=2.0, max_ms=60_000, jitter=0.2)
"""When a task that a worker did not know is handed out again, for as long as nobody knows it."""


def dispatch(
    turn: Turn, id: int, token: Token, call: TaskCall, *, attempt: int, losses: int = 0, returns: int = 0
) -> None:
    """Hands the token's task out, as a new delivery with a new dispatch id."""
    number, name = turn.context.next_dispatch()
    node = turn.node(token)
    turn.park(
        id,
        Token(
            *(token.node, token.frame, token.branch, token.slot, records.DISPATCHED, token.step),
            *(name, attempt, losses, 0, 0, returns),
        ),
    )
    alone = losses >= LOSSES_BEFORE_ALONE
    turn.draft.dispatches.append(
        Dispatch(number, name, id, node.name, call, token.slot, token.step, attempt, losses, alone)
    )
    turn.record(history.DISPATCHED, token.node, token.frame, token.branch, token.step, attempt)


def completed(turn: Turn, id: int, token: Token, result: ResultMessage) -> Token:
    """Records that the attempt completed; the token, for the caller to move."""
    turn.record(
        *(history.COMPLETED, token.node, token.frame, token.branch, token.step, token.attempt),
        *(result.began, result.duration_ms, result.worker),
    )
    return turn.drop_timer(id, token)


def not_completed(turn: Turn, id: int, token: Token, call: TaskCall, result: ResultMessage) -> None:
    """What becomes of a delivery that ended without a value."""
    if result.outcome in ("failed", "timed_out"):
        failure = result.failure or Failure("Unknown", "The worker gave no reason.")
        attempt_failed(turn, id, token, call, failure, result.outcome, result.worker)
    elif result.outcome == "lost":
        lost(turn, id, token, call, result.worker)
    elif result.outcome == "returned":
        turn.drop_timer(id, token)
        _redeliver(turn, id, token, call, token.losses, "returned")
    else:
        delay = retry_delay_ms(UNKNOWN_TASK, min(token.returns, 30) + 1, token.dispatch)
        _record_redelivery(turn, token, token.losses, "unknown task")
        _back_off(turn, id, token._replace(returns=token.returns + 1), turn.now + delay)


def lost(turn: Turn, id: int, token: Token, call: TaskCall, worker: str) -> None:
    """The worker that held the delivery is gone: hand it out anew, or give up on a task that kills its workers."""
    losses = token.losses + 1
    turn.drop_timer(id, token)
    if losses - LOSSES_BEFORE_ALONE >= turn.context.max_deliveries:
        failure = Failure(
            "WorkerLost",
            f"The task's worker was lost {losses} times, {turn.context.max_deliveries} of them while it ran alone.",
        )
        _record_failure(turn, token, "lost", failure, worker)
        fail_step(turn, id, token, failure)
        return
    _redeliver(turn, id, token, call, losses, "lost")


def attempt_failed(
    turn: Turn, id: int, token: Token, call: TaskCall, failure: Failure, outcome: str, worker: str = ""
) -> None:
    """Schedules the next attempt, or fails the step when the policy or the failure itself allows none."""
    _record_failure(turn, token, outcome, failure, worker)
    may_retry = failure.may_retry is not False and token.attempt <= call.retry.max_retries
    if not may_retry:
        turn.drop_timer(id, token)
        fail_step(turn, id, token, failure)
        return
    delay = failure.retry_after_ms
    if delay is None:
        delay = retry_delay_ms(call.retry, token.attempt, token.dispatch)
    due = turn.now + delay
    turn.record(history.RETRY_SCHEDULED, token.node, token.frame, token.branch, token.step, token.attempt + 1, due)
    _back_off(turn, id, token._replace(attempt=token.attempt + 1), due)


def retry_delay_ms(retry: RetrySpec, k: int, seed: str) -> int:
    """The delay before retry `k` (from 1): `initial * backoff**(k-1)`, capped, then jittered (DESIGN 7).

    The engine has no random numbers, so the jitter is drawn from the dispatch id, which is as good as random.
    """
    try:
        delay = min(retry.initial_ms * retry.backoff ** (k - 1), retry.max_ms)
    except OverflowError:
        delay = retry.max_ms
    draw = crc32(seed.encode()) / 0xFFFFFFFF * 2 - 1
    return max(0, round(delay * (1 + retry.jitter * draw)))


def on_started(turn: Turn, id: int, token: Token, call: TaskCall, started: StartedMessage) -> None:
    """An attempt with a time-out reported its start: a timer guards it, whatever the worker does.

    The report may come late; that it began after now is the fault of its worker's clock.
    """
    if call.timeout_ms and not token.timer:
        due = min(max(started.began, 0), turn.now) + call.timeout_ms + turn.context.lease_ms
        turn.park(id, turn.set_timer(id, token, due))


def on_timer(turn: Turn, id: int, token: Token, call: TaskCall) -> None:
    """The backoff is over, or the guard found the attempt still running."""
    token = token._replace(timer=0, due=0)
    if token.phase == records.BACKOFF:
        dispatch(turn, id, token, call, attempt=token.attempt, losses=token.losses, returns=token.returns)
    elif token.phase == records.DISPATCHED:
        revoke(turn, token, call)
        failure = Failure(
            "TaskTimedOut", f"The attempt ran longer than {call.timeout_ms} ms, and its worker did not end it."
        )
        attempt_failed(turn, id, token, call, failure, "timed_out")


def revoke(turn: Turn, token: Token, call: TaskCall) -> None:
    """Takes the token's delivery out of its stream and tells who runs it."""
    if token.dispatch:
        turn.draft.revokes.append(Revoke(token.dispatch, call.stream))


def _redeliver(turn: Turn, id: int, token: Token, call: TaskCall, losses: int, cause: str) -> None:
    revoke(turn, token, call)
    _record_redelivery(turn, token, losses, cause)
    dispatch(turn, id, token, call, attempt=token.attempt, losses=losses)


def _record_redelivery(turn: Turn, token: Token, losses: int, cause: str) -> None:
    turn.record(history.REDELIVERED, token.node, token.frame, token.branch, token.step, token.attempt, losses, cause)


def _back_off(turn: Turn, id: int, token: Token, due: int) -> None:
    token = turn.drop_timer(id, token)._replace(phase=records.BACKOFF, dispatch="")
    turn.park(id, turn.set_timer(id, token, due))


def _record_failure(turn: Turn, token: Token, outcome: str, failure: Failure, worker: str) -> None:
    turn.record(
        *(history.FAILED, token.node, token.frame, token.branch, token.step, token.attempt),
        *(outcome, failure.type, failure.message, failure.traceback, worker),
    )
