"""Listens to what owners revoke: the fast way to stop a task, beside the answer to the next renewal."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Self

from headrace_broker.backoff import Backoff
from headrace_broker.connection import Connector, Subscription
from headrace_broker.errors import ServerError, ServerUnreachable


class Revocations:
    """A thread that subscribes, for as long as this is open. `wake` is called in it when something has come."""

    def __init__(self, connector: Connector, channels: Sequence[str], wake: Callable[[], None]) -> None:
        self._connector = connector
        self._channels = channels
        self._wake = wake
        self._found: deque[str] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-revocations", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._running.wait()
        return self

    def __exit__(self, *_: object) -> None:
        loop, task = self._loop, self._task
        if loop is not None and task is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
        self._thread.join(5)

    def take(self) -> list[str]:
        """The dispatch ids that have come since."""
        found: list[str] = []
        while self._found:
            found.append(self._found.popleft())
        return found

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._listen())

    async def _listen(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._running.set()
        backoff = Backoff(Random())
        while True:
            try:
                await self._subscribed(backoff)
            except (ServerUnreachable, ServerError):  # the keeper's own link says so too
                await asyncio.sleep(backoff.next())

    async def _subscribed(self, backoff: Backoff) -> None:
        """Serves one subscription until it is lost, which raises."""
        subscription = await self._connector.subscription()
        reader = asyncio.create_task(self._read(subscription))
        try:
            await subscription.subscribe(*self._channels)
            backoff.reset()
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await subscription.close()

    async def _read(self, subscription: Subscription) -> None:
        async for _, data in subscription.messages():
            self._found.append(data.decode(errors="replace"))
            self._wake()
