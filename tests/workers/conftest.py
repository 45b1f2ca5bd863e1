"""Fixtures of the workers' tests: a feed, and children that run in the test's own event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from headrace.tasks import AnyTask
from headrace_broker.connection import Connector, Server
from headrace_workers.child import ChildLoop, ChildSettings
from headrace_workers.executors import Threads
from headrace_workers.served import serve
from support.feeding import Feed

from .keeping import World


@pytest.fixture
def feed(server_url: str, namespace: str) -> Iterator[Feed]:
    made = Feed(server_url, namespace)
    yield made
    made.close()


@pytest.fixture
def world(feed: Feed, server_url: str) -> Iterator[World]:
    made = World(feed, server_url)
    yield made
    made.keeper.kill()
    while not made.keeper.done:
        made.reachable = True
        made.step(1)


class Children:
    """Starts child loops; those that run at the end are drained without grace."""

    def __init__(self, url: str, feed: Feed) -> None:
        self.feed = feed
        self.connector: Connector = Server(url)
        self._running: list[tuple[ChildLoop, asyncio.Task[None]]] = []

    def start(
        self,
        *known: AnyTask,
        begins: Callable[[str, str], None] = lambda key, entry: None,
        worn: Callable[[str], None] = lambda reason: None,
        resident: Callable[[], int] = lambda: 0,
        **settings: Any,
    ) -> ChildLoop:
        defaults: dict[str, Any] = {"consumer": "keeper.1", "block_ms": 50, "lease_ms": 1000}
        chosen = ChildSettings(**defaults | settings)
        child = ChildLoop(
            chosen,
            serve(known),
            self.feed.namespace,
            self.connector,
            Threads(chosen.concurrency),
            monotonic=time.monotonic,
            random=Random(1),
            begins=begins,
            worn=worn,
            resident=resident,
        )
        self._running.append((child, asyncio.create_task(child.run())))
        return child

    async def ended(self, child: ChildLoop) -> None:
        """Waits for a child's drain. Raises what it died of."""
        async with asyncio.timeout(10):
            await next(running for one, running in self._running if one is child)

    async def kill(self, child: ChildLoop) -> None:
        """As a SIGKILL would: nothing is handed back."""
        running = next(running for one, running in self._running if one is child)
        running.cancel()
        await asyncio.wait([running])

    async def close(self) -> None:
        for child, _ in self._running:
            child.drain(0)
        for _, running in self._running:
            if not running.cancelled():
                await running


@pytest_asyncio.fixture
async def children(server_url: str, feed: Feed) -> AsyncIterator[Children]:
    made = Children(server_url, feed)
    yield made
    await made.close()
