"""Connections of a child that are made anew after a loss."""

from __future__ import annotations

from headrace_broker.clock import ASK, ServerClock
from headrace_broker.connection import AsyncLink, Connector


class LastingLink:
    """A link that is there when asked for. One coroutine uses it at a time."""

    def __init__(self, connector: Connector, clock: ServerClock) -> None:
        self._connector = connector
        self._clock = clock
        self._link: AsyncLink | None = None

    async def get(self) -> AsyncLink:
        """The link; connects if need be, and reads the server's clock then.

        Raises `ServerUnreachable` and `ServerError`.
        """
        if self._link is None:
            link = await self._connector.connect_async()
            try:
                sent = self._clock.monotonic()
                self._clock.learn((await link.exchange([ASK]))[0], sent)
            except BaseException:
                await link.close()
                raise
            self._link = link
        return self._link

    async def drop(self) -> None:
        """Closes it; the next `get` connects again."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()
