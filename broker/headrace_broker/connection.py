"""Connections to the server: commands out, replies in, and nothing repeated behind the caller's back.

redis-py sends a command again when its reply was lost, which would apply a commit twice (DESIGN 5). So every
connection here is made with retries off, and a lost reply is the caller's to handle, as `ServerUnreachable`.

`Link` and `AsyncLink` are what the partition loop, the keeper, the child loop and the client are given (invariant 4):
the simulator has its own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import hiredis
import redis
import redis.asyncio as aioredis
import redis.asyncio.connection
import redis.connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from .errors import ConfigurationError, ServerError, ServerUnreachable
from .parsing import AsyncBulkParser, BulkParser

P = TypeVar("P")

Argument = bytes | str | int | float
Command = tuple[Argument, ...]
Reply = Any
"""RESP2: bytes, int, None, or a list of these. Errors are `ServerError` values where a method says so."""

_CONFIRMATION_DEADLINE = 10.0
# What redis-py leaves untyped.
_parse_url: Callable[[str], dict[str, Any]] = cast(Any, redis.connection).parse_url
_parse_async_url: Callable[[str], dict[str, Any]] = cast(Any, redis.asyncio.connection).parse_url
_pack_command: Callable[[Command], bytes] = cast(Any, hiredis).pack_command
_ANONYMOUS: dict[str, Any] = {"driver_info": None} if hasattr(redis, "DriverInfo") else {}
"""Else redis-py reads its own package metadata for each connection, to tell the server its version: 5 ms."""
_ALWAYS: dict[str, Any] = {**_ANONYMOUS, "protocol": 2, "health_check_interval": 0}

_LOST = (redis.ConnectionError, redis.TimeoutError, OSError, EOFError)
_BROKEN = (*_LOST, redis.InvalidResponse)
"""`_LOST`, or the other side speaks another protocol."""


class Link(Protocol):
    """A connection of its own, used by one thread."""

    def send(self, commands: Sequence[Command]) -> None:
        """Writes the commands without reading. Raises `ServerUnreachable`."""
        ...

    def receive(self, count: int) -> list[Reply]:
        """The next `count` replies; errors of single commands are `ServerError` values among them.

        Raises `ServerUnreachable` when the connection is lost or its time-out passes: what was sent may or may
        not have been done.
        """
        ...

    def wait(self, seconds: float) -> bool:
        """Whether a reply begins to arrive within that time. Raises `ServerUnreachable`."""
        ...

    def close(self) -> None: ...


class AsyncLink(Protocol):
    """A connection of its own, used by one task at a time."""

    async def exchange(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Sends all, reads all; errors of single commands are `ServerError` values among the replies.

        `timeout` (seconds) replaces the connection's own, for blocking reads. Raises `ServerUnreachable`; the link
        is closed then. A cancelled exchange closes the link too, for its replies would answer the next one.
        """
        ...

    async def close(self) -> None: ...


class Subscription(Protocol):
    """Messages of channels, as (channel, data)."""

    async def subscribe(self, *channels: str) -> None:
        """Returns when the server confirmed the subscription."""
        ...

    async def unsubscribe(self, *channels: str) -> None: ...

    def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        """Ends by raising `ServerUnreachable`."""
        ...

    async def close(self) -> None: ...


class Connector(Protocol):
    """Makes connections to one server."""

    @property
    def url(self) -> str: ...

    def connect(self, *, timeout: float = 5.0) -> Link: ...

    async def connect_async(self, *, timeout: float = 5.0) -> AsyncLink: ...

    async def subscription(self) -> Subscription: ...


def exchange(link: Link, commands: Sequence[Command]) -> list[Reply]:
    """Sends all, reads all; errors are values. Raises `ServerUnreachable`."""
    link.send(commands)
    return link.receive(len(commands))


def call(link: Link, *command: Argument) -> Reply:
    """One command and its reply. Raises `ServerError` and `ServerUnreachable`."""
    return raise_error(exchange(link, [command])[0])


async def call_async(link: AsyncLink, *command: Argument) -> Reply:
    """One command and its reply. Raises `ServerError` and `ServerUnreachable`."""
    return raise_error((await link.exchange([command]))[0])


def is_wrong_type(reply: Reply) -> bool:
    """Whether a command met a key of another type: a strange hand was there."""
    return isinstance(reply, ServerError) and "wrong kind of value" in str(reply)


def raise_error(reply: Reply) -> Reply:
    """The reply, unless it is an error: then raises it."""
    if isinstance(reply, ServerError):
        raise reply
    return reply


def as_replies(raw: list[Any]) -> list[Reply]:
    """Errors as `ServerError` values, also those one level down: EXEC's reply holds the errors of its commands."""
    for index, reply in enumerate(raw):
        if type(reply) is bytes or reply is None:
            continue
        if isinstance(reply, Exception):
            raw[index] = ServerError(str(reply))
        elif isinstance(reply, list):
            _convert_items(reply)  # pyright: ignore[reportUnknownArgumentType] mypy calls a cast redundant
    return raw


def _convert_items(items: list[Any]) -> None:
    for place, item in enumerate(items):
        if isinstance(item, Exception):
            items[place] = ServerError(str(item))


def pack(commands: Iterable[Command]) -> bytes:
    """The commands as the server reads them (RESP)."""
    return b"".join([_pack_command(command) for command in commands])


def shown(url: str) -> str:
    """The URL for people's eyes: without its password."""
    return re.sub(r"(?<=:)[^:@/]*(?=@)", "***", url)


def _refused(url: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"The server at {shown(url)} refused the user or password: {error}. They belong into the URL: "
        "redis://USER:PASSWORD@host:6379/0."
    )


@dataclass(frozen=True)
class Server:
    """A real server, by URL: `redis://`, `rediss://` or `unix://`."""

    url: str

    def __post_init__(self) -> None:
        try:
            _parse_url(self.url)
        except ValueError as error:
            raise ConfigurationError(
                f"A server URL looks like redis://host:6379/0, rediss://… or embedded://DIR; got {shown(self.url)}: "
                f"{error}."
            ) from None

    def connect(self, *, timeout: float = 5.0) -> Link:
        """Connects; `timeout` in seconds holds for connecting and for each wait for a reply."""
        options = _parse_url(self.url)
        kind = options.pop("connection_class", redis.Connection)
        parsers: list[BulkParser] = []
        link = RedisLink(
            kind(
                **options,
                **_ALWAYS,
                parser_class=_keeping(parsers, BulkParser),
                retry=Retry(NoBackoff(), 0),
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
            ),
            parsers[-1].read_many,
        )
        link.open(self.url)
        return link

    async def connect_async(self, *, timeout: float = 5.0) -> AsyncLink:
        options = _parse_async_url(self.url)
        kind = options.pop("connection_class", aioredis.Connection)
        parsers: list[AsyncBulkParser] = []
        link = AsyncRedisLink(
            kind(
                **options,
                **_ALWAYS,
                parser_class=_keeping(parsers, AsyncBulkParser),
                retry=AsyncRetry(NoBackoff(), 0),
                socket_timeout=None,
                socket_connect_timeout=timeout,
            ),
            parsers[-1].read_many,
            timeout,
        )
        await link.open(self.url)
        return link

    async def subscription(self) -> Subscription:
        return RedisSubscription(cast(AsyncRedisLink, await self.connect_async()))


def _keeping(parsers: list[P], kind: type[P]) -> Callable[..., P]:
    """What redis-py takes for a parser's class; the parser it makes is also put into `parsers`."""

    def make(**options: Any) -> P:
        parser = kind(**options)
        parsers.append(parser)
        return parser

    return make


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
        except redis.AuthenticationError as error:
            raise _refused(url, error) from error
        except _LOST as error:
            raise ServerUnreachable(f"No server answers at {shown(url)}: {error}") from error
        except redis.RedisError as error:
            raise ServerError(f"The server at {shown(url)} refused the connection: {error}") from error

    def send(self, commands: Sequence[Command]) -> None:
        self._check()
        try:
            self._connection.send_packed_command([pack(commands)], check_health=False)
        except _LOST as error:
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
        except _BROKEN as error:
            self.close()
            raise ServerUnreachable(f"The connection was lost while waiting for a reply: {error}") from error

    def wait(self, seconds: float) -> bool:
        self._check()
        try:
            return bool(self._connection.can_read(seconds))
        except _BROKEN as error:
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
        except redis.AuthenticationError as error:
            await self.close()
            raise _refused(url, error) from error
        except (*_LOST, TimeoutError) as error:
            await self.close()
            raise ServerUnreachable(f"No server answers at {shown(url)}: {error}") from error
        except redis.RedisError as error:
            raise ServerError(f"The server at {shown(url)} refused the connection: {error}") from error

    async def exchange(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        self._check()
        done = False
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout):
                await self._connection.send_packed_command([pack(commands)], check_health=False)
                replies = as_replies(await self._read_many(len(commands)))
            done = True
            return replies
        except _BROKEN as error:
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
            async with asyncio.timeout(_CONFIRMATION_DEADLINE):
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
        except _LOST as error:
            raise ServerUnreachable(f"The subscription was lost: {error}") from error

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        while True:
            try:
                reply = await self._link.read()
            except _BROKEN as error:
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
