"""What a worker tells of a delivery: that it began, how it ended. Each message repeats the ids of its task."""

from __future__ import annotations

from headrace_broker.messages import Failure, Outcome, ResultMessage, StartedMessage, TaskMessage
from headrace_broker.values import Value


def started(task: TaskMessage, began: int, worker: str) -> StartedMessage:
    """`began` in ms by the server's clock."""
    return StartedMessage(task.instance, task.incarnation, task.dispatch, task.token, began, worker)


def ended(
    task: TaskMessage,
    outcome: Outcome,
    worker: str,
    *,
    began: int = 0,
    duration_ms: int = 0,
    value: Value | None = None,
    route: str | None = None,
    failure: Failure | None = None,
) -> ResultMessage:
    """`began` is 0 for what never began."""
    return ResultMessage(
        task.instance,
        task.incarnation,
        task.dispatch,
        task.token,
        outcome,
        value,
        failure,
        route,
        began,
        duration_ms,
        worker,
        task.traceparent,
    )


def time_out(task: TaskMessage) -> str:
    """For people, about an attempt that was stopped for its time-out."""
    return f"Task {task.task!r} ran longer than its time-out of {task.timeout_ms / 1000:g} s."
