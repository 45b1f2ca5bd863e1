"""The flow of the kill tests: six steps with a fork. Each task writes a line to a ledger before it returns."""

from __future__ import annotations

import os
import time

from headrace import Flow, TaskContext, task


def write_down(step: str, context: TaskContext) -> None:
    """One line per execution, in one write, which the kernel appends whole."""
    line = f"{context.idempotency_key} {step} {context.instance_id}\n"
    descriptor = os.open(os.environ["HEADRACE_TEST_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@task
async def first(value: int, context: TaskContext) -> int:
    write_down("first", context)
    return value


@task
def left(value: int, context: TaskContext) -> int:
    write_down("left", context)
    time.sleep(0.002)  # work, so that a kill meets some
    return value + 1


@task(retries=2)
async def right(value: int, context: TaskContext) -> int:
    write_down("right", context)
    if value % 20 == 0 and context.attempt == 1:
        raise OSError("the first attempt of every twentieth fails")
    return value + 2


@task
async def join(left: int, right: int, context: TaskContext) -> int:
    write_down("join", context)
    return left + right


@task
def late(value: int, context: TaskContext) -> int:
    write_down("late", context)
    return value * 2


@task
async def last(value: int, context: TaskContext) -> str:
    write_down("last", context)
    return f"done {value}"


flow = (
    Flow("kills", input=int)
    .then(first)
    .fork()
    .branch("left", left)
    .branch("right", right)
    .join(join)
    .then(late)
    .then(last)
)
