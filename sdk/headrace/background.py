"""An event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, Final, Generic, TypeVar

from headrace_broker.errors import ClientClosed

T = TypeVar("T")
R = TypeVar("R")

_END: Final = object()


class Background(Generic[T]):
    """A resident, such as a client, that lives on an event loop in a daemon thread; used from any number of threads.

    The thread is started by the first call and ended by `close`, or with the process. In a forked child, which has no
    threads but one, the first call makes loop and resident anew; the parent's stay the parent's.
    """

    def __init__(self, make: Callable[[], T], end: Callable[[T], Awaitable[None]]) -> None:
        """`make` is called once now, and once in each forked child that needs it."""
        self._make = make
        self._end = end
        self._lock = threading.Lock()
        self._closed = False
        self._resident: T | None = make()
        self._life: _Life[T] | None = None
        _EVERY.add(self)

    def run(self, work: Callable[[T], Coroutine[Any, Any, R]]) -> R:
        """Does the work on the loop and waits for it. An exception in the waiting thread, such as Ctrl-C, cancels it.

        Raises what it raises, and `ClientClosed` if `close` was called before it was done.
        """
        return self._alive().run(work)

    def iterate(self, begin: Callable[[T], AsyncGenerator[R]]) -> Generator[R]:
        """What the async generator gives, asked for one by one. `begin` is called at once, in the caller's thread."""
        life = self._alive()
        return life.iterate(begin(life.resident))

    def close(self) -> None:
        """Cancels what runs, ends the resident, and the thread. May be called again."""
        with self._lock:
            self._closed = True
            life, self._life = self._life, None
        if life is not None:
            life.stop()

    def forget(self) -> None:
        """In a forked child: thread, locks and connections are the parent's."""
        self._lock = threading.Lock()
        if self._life is not None:
            _INHERITED.append(self._life)  # if it were collected, it would close what it shares with the parent
            self._life = None

    def _alive(self) -> _Life[T]:
        with self._lock:
            if self._closed:
                raise ClientClosed
            if self._life is None:
                resident = self._make() if self._resident is None else self._resident
                self._resident = None
                self._life = _Life(resident, self._end)
                weakref.finalize(self, self._life.stop)  # also when the process ends
            return self._life


_EVERY: weakref.WeakSet[Background[Any]] = weakref.WeakSet()
_INHERITED: list[_Life[Any]] = []


def _forget_all() -> None:
    for background in list(_EVERY):
        background.forget()


os.register_at_fork(after_in_child=_forget_all)


class _Life(Generic[T]):
    """One thread, its loop, and the resident on it."""

    def __init__(self, resident: T, end: Callable[[T], Awaitable[None]]) -> None:
        self.resident = resident
        self._end = end
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._stopping = False
        self._loop = asyncio.new_event_loop()
        self._wish_to_end = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="headrace-client", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[T], Coroutine[Any, Any, R]]) -> R:
        if threading.current_thread() is self._thread:
            raise RuntimeError("The client's own thread cannot wait for itself. Use headrace.Client in async code.")
        if self._process != os.getpid():
            raise ClientClosed("This was begun before the process forked; it goes on in the parent only.")
        answer: Future[R] = Future()
        try:
            with self._lock:
                if self._stopping:
                    raise ClientClosed
                self._loop.call_soon_threadsafe(self._begin, work, answer)
            return answer.result()
        except CancelledError:
            raise ClientClosed("The client was closed while this waited.") from None
        except BaseException:
            answer.cancel()
            raise

    def _begin(self, work: Callable[[T], Coroutine[Any, Any, R]], answer: Future[R]) -> None:
        """On the loop; a coroutine made in the caller's thread would be left over where Ctrl-C comes in between."""
        if answer.cancelled():
            return
        task = self._loop.create_task(work(self.resident))
        task.add_done_callback(partial(_tell, answer))
        answer.add_done_callback(partial(self._give_up, task))

    def _give_up(self, task: asyncio.Task[R], answer: Future[R]) -> None:
        if answer.cancelled():
            self._loop.call_soon_threadsafe(task.cancel)

    def iterate(self, source: AsyncGenerator[R]) -> Generator[R]:
        one_at_a_time = asyncio.Lock()  # a step that is cancelled may still be leaving

        async def step(_: T) -> Any:
            async with one_at_a_time:
                return await anext(source, _END)

        async def leave(_: T) -> None:
            async with one_at_a_time:
                await source.aclose()

        try:
            while (item := self.run(step)) is not _END:
                yield item
        finally:
            with contextlib.suppress(ClientClosed):
                self.run(leave)

    def stop(self) -> None:
        if self._process != os.getpid():
            return
        with self._lock:
            first, self._stopping = not self._stopping, True
        if first:
            self._loop.call_soon_threadsafe(self._wish_to_end.set)
        if threading.current_thread() is not self._thread:  # where a collection may have come from
            self._thread.join()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        await self._wish_to_end.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._end(self.resident)


def _tell(answer: Future[R], task: asyncio.Task[R]) -> None:
    error = None if task.cancelled() else task.exception()
    if task.cancelled():
        answer.cancel()
    elif not answer.set_running_or_notify_cancel():  # nobody waits any more
        return
    elif error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(task.result())
