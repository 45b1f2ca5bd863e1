"""One attempt: from a delivered task to what it gave, or why it failed. Knows no streams and no slots."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Final, NamedTuple

from headrace.context import ACTIVE, Cancellation, TaskContext
from headrace.flow.keys import route_key
from headrace.retry import retry_after_ms
from headrace.tasks import AnyTask
from headrace_broker import codec, values
from headrace_broker.errors import PayloadError
from headrace_broker.messages import Failure, TaskMessage
from headrace_broker.values import Value

from .executors import Executor
from .tracebacks import format_traceback

MESSAGE_LIMIT: Final = 2 * 1024
"""What a failure keeps of a message: its first characters."""

Resolve = Callable[[TaskMessage], Awaitable[Value]]


class Output(NamedTuple):
    """What a completed attempt gave: its value if that is inline, else the large payload; a route key if it is one."""

    value: Value | None
    route: str | None
    large: bytes | None


class Attempt:
    """Runs a task once. `thread` is set while (and after) a plain function runs elsewhere."""

    __slots__ = ("_cancellation", "message", "task", "thread")

    def __init__(self, task: AnyTask, message: TaskMessage) -> None:
        self.task = task
        self.message = message
        self.thread: asyncio.Future[Any] | None = None
        self._cancellation = Cancellation()

    def ask_to_stop(self) -> None:
        """Sets `TaskContext.cancelled`, which is all that can be done to a thread."""
        self._cancellation.request()

    async def run(self, resolve: Resolve, executor: Executor) -> Output | Failure:
        """Raises `CancelledError` when it is cancelled, and no other: whatever the task raises is a `Failure`.

        Runs in a context of its own. Cancelling it stops a coroutine, and abandons a thread.
        """
        task = self.task
        context = TaskContext(self.message, self._cancellation)
        ACTIVE.set(context)
        try:
            value = self.message.value
            if value[:1] not in (b"m", b"j"):
                value = await resolve(self.message)
            args, kwargs = task.bind(value, context)
            if task.is_async:
                result = await task.fn(*args, **kwargs)
            else:
                self.thread = executor.submit(partial(copy_context().run, partial(task.fn, *args, **kwargs)))
                result = await asyncio.shield(self.thread)
            return output_of(result, task)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 also SystemExit: one task must not end its neighbours
            return failure_of(error, task)


def output_of(result: object, task: AnyTask) -> Output:
    """What to report of a completed attempt. Raises `PayloadError`."""
    payload = codec.encode(result)
    if len(payload) <= codec.INLINE_LIMIT:
        return Output(values.inline(payload), route_key(result, task), None)
    codec.check_size(payload)
    return Output(None, route_key(result, task), payload)


def failure_of(error: BaseException, task: AnyTask | None = None) -> Failure:
    """The failure to report, with what the task's retry policy says of it."""
    policy = task.retry.may_retry(error) if task is not None else None
    # A payload that cannot be encoded, decoded or carried is the same at the next attempt.
    may_retry = False if isinstance(error, PayloadError) else policy
    return Failure(
        type=_clean(type(error).__qualname__, MESSAGE_LIMIT),
        message=_clean(_text(error), MESSAGE_LIMIT),
        traceback=format_traceback(error),
        may_retry=may_retry,
        retry_after_ms=retry_after_ms(error),
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 it is the author's __str__
        return f"(its __str__ raised {type(second).__name__})"


def _clean(text: str, limit: int) -> str:
    """At most `limit` characters that UTF-8 can carry."""
    return text[:limit].encode("utf-8", "replace").decode()
