"""A client's way to the server: one shared connection, an opened namespace, and requests that survive a lost reply.

Time is the event loop's and chance is injected, so that the simulator runs this very code (DESIGN 4, invariant 4).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, TypeVar

from headrace_broker.backoff import Backoff
from headrace_broker.connection import Connector, Server
from headrace_broker.conversations import Conversation, converse_async
from headrace_broker.durations import Duration, format_duration, parse_duration
from headrace_broker.errors import ClientClosed, ConfigurationError, ServerNotReady, ServerUnreachable
from headrace_broker.keys import Keys
from headrace_broker.locate import DEFAULT_URL, EMBEDDED, Located, locate
from headrace_broker.namespace import Namespace, enter_namespace
from headrace_broker.shared_link import SharedLink
from headrace_broker.urls import shown

T = TypeVar("T")

RETRY_FOR: Final = "5m"
"""Half the life of the answer to a request id, so that a repetition always meets it (DESIGN 5)."""
_LONGEST_DELAY: Final = 5.0

_log = logging.getLogger("headrace.client")


class Session:
    """Opened at the first request; used by any number of tasks of one event loop."""

    def __init__(
        self,
        url: str | None,
        namespace: str | None,
        connector: Connector | None,
        retry_for: Duration,
        random: Random | None,
    ) -> None:
        self.url = connector.url if connector is not None else url or os.environ.get("HEADRACE_URL") or DEFAULT_URL
        self.random = random or Random()
        if not isinstance(self.url, str):  # pyright: ignore[reportUnnecessaryIsInstance] callers may be untyped
            raise ConfigurationError(f"A server URL is text, such as redis://host:6379/0; got {self.url!r:.80}.")
        self._name = namespace or os.environ.get("HEADRACE_NAMESPACE") or "headrace"
        Keys(self._name)  # a bad name is told at once
        self._retry_ms = parse_duration(retry_for)
        self._located: Located | None = None
        self._connector = connector
        self._link: SharedLink | None = None
        self._namespace: Namespace | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        if connector is None and not self.url.startswith(EMBEDDED):
            self._connector = Server(self.url)  # a bad URL is told at once

    async def connector(self) -> Connector:
        """What makes connections; starts the embedded server if the URL names one. Raises `ClientClosed`."""
        if self._closed:
            raise ClientClosed
        if self._connector is None:
            async with self._opening:
                if self._connector is None:
                    self._located = await _locate(self.url)
                    self._connector = Server(self._located.url)
        return self._connector

    async def link(self) -> SharedLink:
        connector = await self.connector()
        if self._link is None:
            self._link = SharedLink(connector)
        return self._link

    async def namespace(self) -> Namespace:
        if self._namespace is None:
            link = await self.link()
            async with self._opening:
                if self._namespace is None:
                    self._namespace = await converse_async(link, enter_namespace(self._name))
        return self._namespace

    def backoff(self) -> Backoff:
        return Backoff(self.random, cap=_LONGEST_DELAY)

    async def ask(self, conversation: Callable[[Namespace], Conversation[T]], purpose: str) -> T:
        """Holds a conversation until it is answered. Raises what it raises; `ServerUnreachable` as `retry` does."""

        async def hold(namespace: Namespace, link: SharedLink) -> T:
            return await converse_async(link, conversation(namespace))

        return await self.retry(hold, purpose)

    async def retry(self, operation: Callable[[Namespace, SharedLink], Awaitable[T]], purpose: str) -> T:
        """Does it again after each loss of the connection, which must not matter: it reads, or has a request id.

        Raises `ServerUnreachable` when no attempt succeeded for the time given as `retry_for`, and `ClientClosed`.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._retry_ms / 1000
        backoff = self.backoff()
        for attempt in itertools.count(1):
            try:
                link = await self.link()
                return await operation(await self.namespace(), link)
            except (ServerUnreachable, ServerNotReady) as error:
                delay = backoff.next()
                if clock() + delay > deadline:
                    raise ServerUnreachable(
                        f"The server could not be reached for {format_duration(self._retry_ms)}, to {purpose}: "
                        f"{self._about(error)} Is it running, and is the URL right (HEADRACE_URL, --url)?"
                    ) from error
                quiet = delay < 1 and attempt > 1
                _log.log(
                    logging.DEBUG if quiet else logging.WARNING,
                    "Waiting for the server, to %s: %s Trying again for %s.",
                    *(purpose, self._about(error), format_duration(self._retry_ms)),
                )
                await asyncio.sleep(delay)
        raise AssertionError  # count never ends

    def _about(self, error: Exception) -> str:
        reason, url = str(error).rstrip("."), shown(self.url)
        return f"{reason}." if url in reason else f"{reason} ({url})."

    async def close(self) -> None:
        self._closed = True
        if self._link is not None:
            await self._link.close()
            self._link = None
        if self._located is not None:
            await asyncio.to_thread(self._located.close)
            self._located = None


async def _locate(url: str) -> Located:
    """As `locate`, in a thread. A server that comes up although nobody waits for it any more is stopped."""
    opening = asyncio.get_running_loop().run_in_executor(None, locate, url)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise


def _close_unwanted(opening: asyncio.Future[Located]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
