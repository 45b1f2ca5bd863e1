"""The task context."""

from __future__ import annotations

import asyncio
import threading

import pytest

from headrace import FlowError, TaskContext, current_context
from headrace.context import ACTIVE, Cancellation
from headrace_broker.messages import TaskMessage


def message(attempt: int = 2, dispatch: str = "0-1f-3-1") -> TaskMessage:
    return TaskMessage(
        instance="o-1",
        incarnation="abc",
        run=1,
        flow="orders",
        node="pay/charge",
        task="charge",
        dispatch=dispatch,
        token=0,
        step=4,
        attempt=attempt,
        max_attempts=3,
        losses=0,
        alone=False,
        timeout_ms=0,
        at=0,
        value=b"m",
    )


def test_it_says_what_the_message_says() -> None:
    ctx = TaskContext(message())
    assert (ctx.instance_id, ctx.run, ctx.flow, ctx.step, ctx.task) == ("o-1", 1, "orders", "pay/charge", "charge")
    assert (ctx.attempt, ctx.max_attempts, ctx.dispatch_id) == (2, 3, "0-1f-3-1")
    assert not ctx.cancelled


def test_the_idempotency_key_is_the_same_for_all_attempts_of_a_step() -> None:
    first, second = TaskContext(message(1)), TaskContext(message(2, "0-1f-9-1"))
    assert first.idempotency_key == second.idempotency_key == "abc-4"
    assert TaskContext(message()._replace(step=5)).idempotency_key != first.idempotency_key


def test_the_current_context_is_that_of_the_task() -> None:
    ctx = TaskContext(message())
    token = ACTIVE.set(ctx)
    try:
        assert current_context() is ctx
    finally:
        ACTIVE.reset(token)
    with pytest.raises(FlowError, match="outside of a task"):
        current_context()


async def test_a_cancellation_from_a_thread_wakes_the_task() -> None:
    cancellation = Cancellation()
    ctx = TaskContext(message(), cancellation)
    waiting = asyncio.create_task(ctx.wait_cancelled())
    await asyncio.sleep(0)
    assert not waiting.done()
    thread = threading.Thread(target=cancellation.request)
    thread.start()
    await asyncio.wait_for(waiting, 5)
    thread.join()
    assert ctx.cancelled
    await asyncio.wait_for(ctx.wait_cancelled(), 5)


async def test_who_stops_waiting_is_not_called() -> None:
    cancellation = Cancellation()
    waiting = asyncio.create_task(TaskContext(message(), cancellation).wait_cancelled())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    cancellation.request()
    cancellation.request()
    assert cancellation.requested
