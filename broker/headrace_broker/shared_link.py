"""One connection for many callers: what they ask at the same time goes out in one write.

A thousand callers that each wait for a script of their own cost a few round trips instead of a thousand (DESIGN 10:
unpipelined, a script costs the server seven times as much).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from .connection import AsyncLink, Command, Connector, Reply
from .errors import ServerUnreachable

_BATCH_COMMANDS = 256
_BATCH_BYTES = 1 << 20


class _Ask:
    """One caller's commands, and where its replies go."""

    __slots__ = ("commands", "replies", "size")

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands = commands
        self.size = sum(len(part) for command in commands for part in command if isinstance(part, (bytes, str)))
        self.replies: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()


class SharedLink:
    """`AsyncLink` that any number of tasks may use at once; it connects when first used, and again after a loss.

    The commands of one `exchange` stay together and in order (so MULTI … EXEC is whole), those of different callers
    do not depend on each other. No blocking commands, no WATCH.
    """

    def __init__(self, connector: Connector, *, timeout: float = 5.0) -> None:
        self._connector = connector
        self._timeout = timeout
        self._waiting: deque[_Ask] = deque()
        self._link: AsyncLink | None = None
        self._writer: asyncio.Task[None] | None = None
        self._closed = False

    async def exchange(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """As `AsyncLink.exchange`; `timeout` bounds this caller's patience, the connection stays.

        A caller that is cancelled no longer learns the answer; its commands may be done all the same.
        """
        if self._closed:
            raise ServerUnreachable("The connection was closed by this process.")
        if not commands:
            return []
        ask = _Ask(commands)
        self._waiting.append(ask)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        if timeout is None:
            return await ask.replies
        try:
            async with asyncio.timeout(timeout):
                return await ask.replies
        except TimeoutError:
            raise ServerUnreachable(f"No reply within {timeout:g} s.") from None

    async def close(self) -> None:
        """Callers that still wait get `ServerUnreachable`."""
        self._closed = True
        if self._writer is not None and not self._writer.done():
            self._writer.cancel()
            await asyncio.wait([self._writer])
        self._fail(list(self._waiting), ServerUnreachable("The connection was closed by this process."))
        self._waiting.clear()
        if self._link is not None:
            await self._link.close()
            self._link = None

    async def _write(self) -> None:
        while self._waiting:
            batch = self._take()
            if not batch:
                continue
            try:
                if self._link is None:
                    self._link = await self._connector.connect_async(timeout=self._timeout)
                replies = await self._link.exchange([command for ask in batch for command in ask.commands])
            except BaseException as error:
                self._link = None
                self._fail(batch, error)
                if not isinstance(error, Exception):
                    raise
                continue
            position = 0
            for ask in batch:
                end = position + len(ask.commands)
                if not ask.replies.done():
                    ask.replies.set_result(replies[position:end])
                position = end

    def _take(self) -> list[_Ask]:
        batch: list[_Ask] = []
        commands = size = 0
        while self._waiting and commands < _BATCH_COMMANDS and size < _BATCH_BYTES:
            ask = self._waiting.popleft()
            if ask.replies.done():  # its caller gave up
                continue
            batch.append(ask)
            commands += len(ask.commands)
            size += ask.size
        return batch

    def _fail(self, batch: Sequence[_Ask], error: BaseException) -> None:
        for ask in batch:
            if not ask.replies.done():
                ask.replies.set_exception(_own(error))


def _own(error: BaseException) -> Exception:
    """An error of this caller's own: a raised one collects the traceback of whoever raises it."""
    if isinstance(error, ServerUnreachable):
        return ServerUnreachable(str(error))
    if isinstance(error, Exception):
        return error
    return ServerUnreachable("The connection was closed by this process.")
