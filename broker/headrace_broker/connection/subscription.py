"""Messages of channels, over a connection of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from headrace_broker.errors import ServerUnreachable

from .link import Command, raise_error
from .redis_link import BROKEN, LOST, AsyncRedisLink

CONFIRMATION_DEADLINE: Final = 10.0


class RedisSubscription:
    """`Subscription` over one link. One task reads; others may subscribe meanwhile."""

    def __init__(self, link: AsyncRedisLink) -> None:
        self._link = link
        self._confirmations: dict[str, asyncio.Event] = {}
        self._closed = False

    async def subscribe(self, *channels: str) -> None:
        if not channels:
            return
        waiting = [self._confirmations.setdefault(channel, asyncio.Event()) for channel in channels]
        await self._write(("SUBSCRIBE", *channels))
        try:
            async with asyncio.timeout(CONFIRMATION_DEADLINE):
                for confirmed in waiting:
                    await confirmed.wait()
        except TimeoutError:
            raise ServerUnreachable("The server did not confirm the subscription.") from None
        if self._closed:
            raise ServerUnreachable("The subscription was lost before the server confirmed it.")

    async def unsubscribe(self, *channels: str) -> None:
        if not channels:  # UNSUBSCRIBE alone means all
            return
        for channel in channels:
            self._confirmations.pop(channel, None)
        await self._write(("UNSUBSCRIBE", *channels))

    async def _write(self, command: Command) -> None:
        try:
            await self._link.write([command])
        except LOST as error:
            raise ServerUnreachable(f"The subscription was lost: {error}") from error

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        while True:
            try:
                reply = await self._link.read()
            except BROKEN as error:
                await self.close()
                raise ServerUnreachable(f"The subscription was lost: {error}") from error
            kind, channel = raise_error(reply)[0], reply[1].decode()
            if kind == b"message":
                yield channel, reply[2]
            elif kind == b"subscribe" and (confirmed := self._confirmations.get(channel)):
                confirmed.set()

    async def close(self) -> None:
        self._closed = True
        for confirmed in self._confirmations.values():
            confirmed.set()  # for none will come: whoever waits looks at `_closed`
        await self._link.close()
