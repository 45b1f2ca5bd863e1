"""Waiting in tests: a predicate, a deadline, and a reason that the failure prints."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")

_INTERVAL = 0.01


def wait_until(predicate: Callable[[], T], timeout: float = 10.0, why: str = "") -> T:
    """Calls `predicate` until its answer is truthy, and returns that answer.

    Raises `AssertionError`, with `why` and the last answer, after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(_complaint(timeout, why, answer))
        time.sleep(_INTERVAL)
    return answer


@overload
async def wait_until_async(predicate: Callable[[], Awaitable[T]], timeout: float = 10.0, why: str = "") -> T: ...


@overload
async def wait_until_async(predicate: Callable[[], T], timeout: float = 10.0, why: str = "") -> T: ...


async def wait_until_async(predicate: Callable[[], Awaitable[T] | T], timeout: float = 10.0, why: str = "") -> T:
    """Like `wait_until` without blocking the event loop; the predicate may be a coroutine function."""
    deadline = time.monotonic() + timeout
    while True:
        found = predicate()
        answer = cast(T, await found if inspect.isawaitable(found) else found)
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(_complaint(timeout, why, answer))
        await asyncio.sleep(_INTERVAL)


def _complaint(timeout: float, why: str, answer: object) -> str:
    return f"waited {timeout:g} s in vain for {why or 'a predicate'}; its last answer was {answer!r}"
