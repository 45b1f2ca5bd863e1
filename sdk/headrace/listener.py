"""Who waits for the end of an instance: one subscription for all handles of a client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from headrace_broker.backoff import Backoff
from headrace_broker.connection import Subscription
from headrace_broker.errors import HeadraceError, ServerUnreachable

from .session import Session

_CONFIRM_SECONDS = 2.0

_log = logging.getLogger("headrace.client")


class Bell:
    """Rings when a message came on its channel, or may have been missed."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        """Until it has rung since the last wait, at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()


class Listener:
    """Subscribes to what is listened to, reconnects with backoff, and then rings every bell.

    A message is only a hint: whoever listens reads the state of things first and after each ring, and now and then
    without one.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._bells: dict[str, list[Bell]] = {}
        self._subscription: Subscription | None = None
        self._runner: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()

    @contextlib.asynccontextmanager
    async def listen(self, channel: str) -> AsyncGenerator[Bell]:
        """A bell for the channel, subscribed on entry, unless the server cannot be reached just now."""
        bell = Bell()
        bells = self._bells.setdefault(channel, [])
        bells.append(bell)
        try:
            if self._runner is None or self._runner.done():
                self._runner = asyncio.create_task(self._run())
            elif len(bells) == 1 and self._subscription is not None:
                await self._confirm(self._subscription, channel)
            yield bell
        finally:
            bells.remove(bell)
            if not bells:
                self._bells.pop(channel, None)
                await self._forget(channel)

    async def close(self) -> None:
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
            self._runner = None

    async def _confirm(self, subscription: Subscription, *channels: str) -> None:
        """Waits for the server's confirmation, but neither for long nor on a lost connection."""
        subscribing = asyncio.ensure_future(subscription.subscribe(*channels))
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait([subscribing, lost], timeout=_CONFIRM_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (subscribing, lost):
                task.cancel()
            await asyncio.gather(subscribing, lost, return_exceptions=True)

    async def _forget(self, channel: str) -> None:
        if self._subscription is not None:
            with contextlib.suppress(ServerUnreachable):
                await self._subscription.unsubscribe(channel)

    async def _run(self) -> None:
        backoff = self._session.backoff()
        while True:
            try:
                await self._listen_once(backoff)
            except HeadraceError as error:
                delay = backoff.next()
                _log.info("the subscription was lost: %s Next try in %.1f s.", error, delay)
                await asyncio.sleep(delay)

    async def _listen_once(self, backoff: Backoff) -> None:
        """Serves one subscription until it is lost, which raises."""
        connector = await self._session.connector()
        subscription = await connector.subscription()
        self._lost.clear()
        reader = asyncio.create_task(self._read(subscription))
        try:
            self._subscription = subscription
            if self._bells:
                await self._confirm(subscription, *self._bells)
                for bells in list(self._bells.values()):  # what was published meanwhile is gone
                    for bell in bells:
                        bell.ring()
            backoff.reset()
            await reader
        finally:
            self._subscription = None
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await subscription.close()

    async def _read(self, subscription: Subscription) -> None:
        try:
            async for channel, _ in subscription.messages():
                for bell in self._bells.get(channel, ()):
                    bell.ring()
        finally:
            self._lost.set()
