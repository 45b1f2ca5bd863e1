"""Where plain functions run: threads. Coroutines run on the child's own loop and need nothing here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

Work = Callable[[], Any]


class Executor(Protocol):
    """Runs plain functions beside the event loop. The simulator's runs them on it."""

    def submit(self, work: Work) -> asyncio.Future[Any]:
        """Begins `work` at once. The future ends when the work has really ended; nobody cancels it."""
        ...

    def close(self) -> None:
        """Waits for nothing."""
        ...


class Threads:
    """A thread for each slot, kept for the next task. What cannot be stopped keeps its thread."""

    def __init__(self, slots: int) -> None:
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="headrace-task")
        self._loop = asyncio.get_running_loop()

    def submit(self, work: Work) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pool.submit(self._run, work, future)
        return future

    def _run(self, work: Work, future: asyncio.Future[Any]) -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 also SystemExit: it is the task's failure, not the pool's
            # A future refuses StopIteration.
            failure = RuntimeError(f"raised {error!r}") if isinstance(error, StopIteration) else error
            self._tell(future, future.set_exception, failure)
        else:
            self._tell(future, future.set_result, result)

    def _tell(self, future: asyncio.Future[Any], end: Callable[[Any], None], with_what: object) -> None:
        def tell() -> None:
            if not future.done():  # a loop that is torn down cancels what waits
                end(with_what)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(tell)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
