"""What a running task may know of itself: its ids, its attempt, whether it was cancelled."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from headrace_broker.errors import FlowError
from headrace_broker.messages import TaskMessage


class Cancellation:
    """A request to stop, made by the worker and seen by the task, each in its own thread. It is never taken back."""

    def __init__(self) -> None:
        self._requested = False
        self._lock = threading.Lock()
        self._callbacks: set[Callable[[], None]] = set()

    @property
    def requested(self) -> bool:
        return self._requested

    def request(self) -> None:
        """May be called from any thread, and again."""
        with self._lock:
            self._requested = True
            callbacks, self._callbacks = self._callbacks, set()
        for callback in callbacks:
            callback()

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls `callback` once, in the requester's thread, or here at once if the request was made. Returns what
        takes it back."""
        with self._lock:
            if not self._requested:
                self._callbacks.add(callback)
                return lambda: self._callbacks.discard(callback)
        callback()
        return lambda: None


class TaskContext:
    """The running attempt. A task gets it as a parameter annotated `TaskContext`, or from `current_context()`."""

    __slots__ = ("_cancellation", "_message")

    def __init__(self, message: TaskMessage, cancellation: Cancellation | None = None) -> None:
        self._message = message
        self._cancellation = cancellation if cancellation is not None else Cancellation()

    @property
    def instance_id(self) -> str:
        return self._message.instance

    @property
    def run(self) -> int:
        """Counts from 1; one more at each continue-as-new."""
        return self._message.run

    @property
    def flow(self) -> str:
        """The flow's name."""
        return self._message.flow

    @property
    def step(self) -> str:
        """The name of the node that runs, unique in its flow: `charge`, in a branch `left/charge`."""
        return self._message.node

    @property
    def task(self) -> str:
        """The task's name."""
        return self._message.task

    @property
    def attempt(self) -> int:
        """Counts from 1. A task that was lost with its worker and is handed out again keeps its number."""
        return self._message.attempt

    @property
    def max_attempts(self) -> int:
        return self._message.max_attempts

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts and deliveries of one step, and used by no other step, ever.

        `<incarnation>-<number of the step>`: the incarnation is 72 random bits that name this use of the instance
        id, so an id that is used again gets new keys; the number counts the steps that this instance has begun.
        """
        return f"{self._message.incarnation}-{self._message.step}"

    @property
    def dispatch_id(self) -> str:
        """Names this one hand-out; another attempt or delivery has another."""
        return self._message.dispatch

    @property
    def cancelled(self) -> bool:
        """Whether this attempt should stop: cancelled, timed out, or no longer this worker's. May be asked from any
        thread; a task in a thread should ask now and then, for nobody can stop it otherwise."""
        return self._cancellation.requested

    async def wait_cancelled(self) -> None:
        """Returns when `cancelled` becomes true. (A coroutine is cancelled by asyncio as well.)"""
        import asyncio  # a task in a thread, or an author's module, can do without

        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, nobody waits
                loop.call_soon_threadsafe(woken.set)

        unsubscribe = self._cancellation.subscribe(wake)
        try:
            await woken.wait()
        finally:
            unsubscribe()

    def __repr__(self) -> str:
        return f"<TaskContext {self.instance_id!r} {self.step!r} attempt {self.attempt}/{self.max_attempts}>"


ACTIVE: Final[ContextVar[TaskContext]] = ContextVar("headrace_context")
"""Set by the worker in the context it runs a task in."""


def current_context() -> TaskContext:
    """The context of the task that runs here. Raises `FlowError` outside of a task."""
    try:
        return ACTIVE.get()
    except LookupError:
        raise FlowError(
            "current_context() was called outside of a task. It works in the task's own thread or coroutine; a thread "
            "that the task starts itself needs contextvars.copy_context().run(...)."
        ) from None
