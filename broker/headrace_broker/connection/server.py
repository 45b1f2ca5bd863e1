"""Connections to a real server, by its URL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import redis
import redis.asyncio as aioredis
import redis.asyncio.connection
import redis.connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from headrace_broker.errors import ConfigurationError

from .link import AsyncLink, Link, Subscription
from .parsing import AsyncBulkParser, BulkParser
from .redis_link import AsyncRedisLink, RedisLink
from .subscription import RedisSubscription
from .urls import shown

P = TypeVar("P")

ANONYMOUS: dict[str, Any] = {"driver_info": None} if hasattr(redis, "DriverInfo") else {}
"""Options without which redis-py reads its own package metadata for each connection, to tell the server its version:
5 ms."""
_ALWAYS: dict[str, Any] = {**ANONYMOUS, "protocol": 2, "health_check_interval": 0}
# What redis-py leaves untyped.
_parse_url: Callable[[str], dict[str, Any]] = cast(Any, redis.connection).parse_url
_parse_async_url: Callable[[str], dict[str, Any]] = cast(Any, redis.asyncio.connection).parse_url


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
