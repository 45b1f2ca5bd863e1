"""Threads: how what they run ends, also when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from headrace_workers.executors import Threads


@pytest.mark.parametrize("fails", [False, True])
async def test_a_thread_that_ends_after_its_future_is_no_error(fails: bool) -> None:
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    threads = Threads(1)
    go_on = threading.Event()

    def work() -> None:
        go_on.wait(10)
        if fails:
            raise ValueError("too late")

    future = threads.submit(work)
    future.cancel()
    go_on.set()
    await threads.submit(lambda: None)  # the pool has one thread: the first has told its end
    await asyncio.sleep(0)
    threads.close()
    assert future.cancelled()
    assert complaints == []
