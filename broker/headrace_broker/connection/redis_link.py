"""`Link` and `AsyncLink` over redis-py's connections: commands out, replies in, and a lost reply is an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import FrameType
from typing import Any, cast

import hiredis
import redis

from headrace_broker.errors import ServerUnreachable

from .link import Command, Reply
from .refusals import explained, failed_connecting

LOST = (redis.ConnectionError, redis.TimeoutError, OSError, EOFError)
BROKEN = (*LOST, redis.InvalidResponse)
"""`LOST`, or the other side speaks another protocol."""

_pack_command: Callable[[Command], bytes] = cast(Any, hiredis).pack_command


class RedisLink:
    """`Link` over a redis-py connection."""

    def __init__(self, connection: Any, read_many: Callable[[int], list[Any]]) -> None:
        """`read_many` gives the next replies of that connection, with errors as values."""
        self._connection = connection
        self._read_many = read_many
        self._closed = False

    def open(self, url: str) -> None:
        try:
            self._connection.connect()
        except (*LOST, redis.RedisError) as error:
            raise failed_connecting(url, error) from error

    def send(self, commands: Sequence[Command]) -> None:
        self._check()
        try:
            self._connection.send_packed_command([pack(commands)], check_health=False)
        except LOST as error:
            self.close()
            raise ServerUnreachable(f"The connection was lost while sending: {error}") from error

    def _check(self) -> None:
        """redis-py connects anew by itself, without the WATCH that guards a commit: a closed link stays closed."""
        if self._closed:
            raise ServerUnreachable("The connection is closed.")

    def receive(self, count: int) -> list[Reply]:
        self._check()
        try:
            return as_replies(self._read_many(count))
        except BROKEN as error:
            self.close()
            raise ServerUnreachable(f"The connection was lost while waiting for a reply: {error}") from error

    def wait(self, seconds: float) -> bool:
        self._check()
        try:
            return bool(self._connection.can_read(seconds))
        except BROKEN as error:
            self.close()
            raise ServerUnreachable(f"The connection was lost while waiting for a reply: {error}") from error

    def close(self) -> None:
        self._closed = True
        self._connection.disconnect()


class AsyncRedisLink:
    """`AsyncLink` over a redis-py asyncio connection."""

    def __init__(self, connection: Any, read_many: Callable[[int], Awaitable[list[Any]]], timeout: float) -> None:
        """`read_many` gives the next replies of that connection, with errors as values."""
        self._connection = connection
        self._read_many = read_many
        self._timeout = timeout
        self._closed = False

    async def open(self, url: str) -> None:
        try:
            async with asyncio.timeout(self._timeout):  # redis-py's own does not hold for its first commands
                await self._connection.connect()
        except (*LOST, redis.RedisError) as error:
            await self.close()
            raise failed_connecting(url, error) from error

    async def exchange(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        self._check()
        done = False
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout):
                await self._connection.send_packed_command([pack(commands)], check_health=False)
                replies = as_replies(await self._read_many(len(commands)))
            done = True
            return replies
        except BROKEN as error:
            raise ServerUnreachable(f"The connection was lost while waiting for a reply: {error}") from error
        finally:
            if not done:
                await self.close()

    async def read(self) -> Reply:
        """The next reply, whatever it answers."""
        return as_replies(await self._read_many(1))[0]

    def _check(self) -> None:
        """A closed link stays closed, as `RedisLink` does."""
        if self._closed:
            raise ServerUnreachable("The connection is closed.")

    async def write(self, commands: Sequence[Command]) -> None:
        self._check()
        await self._connection.send_packed_command([pack(commands)], check_health=False)

    async def close(self) -> None:
        self._closed = True
        await self._connection.disconnect(nowait=True)


def as_replies(raw: list[Any]) -> list[Reply]:
    """Errors as `ServerError` values, also those one level down: EXEC's reply holds the errors of its commands."""
    for index, reply in enumerate(raw):
        if type(reply) is bytes or reply is None:
            continue
        if isinstance(reply, Exception):
            raw[index] = explained(reply)
        elif isinstance(reply, list):
            _convert_items(reply)  # pyright: ignore[reportUnknownArgumentType] mypy calls a cast redundant
    return raw


def _convert_items(items: list[Any]) -> None:
    for place, item in enumerate(items):
        if isinstance(item, Exception):
            items[place] = explained(item)


def pack(commands: Iterable[Command]) -> bytes:
    """The commands as the server reads them (RESP)."""
    return b"".join([_pack_command(command) for command in commands])


def is_packing(frame: FrameType | None) -> bool:
    """Whether a signal handler that was called in `frame` must not raise now, and has to come again: hiredis crashes
    when the text of a number, at which Python looks for signals, is an exception."""
    return frame is not None and pack.__code__ in (frame.f_code, frame.f_back.f_code if frame.f_back else None)
