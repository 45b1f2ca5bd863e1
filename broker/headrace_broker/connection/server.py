"""Connections to a real server, by its URL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import redis
import redis.asyncio as aioredis
import redis.asyncio.connection
import redis.connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from headrace_broker.errors import ConfigurationError
from headrace_broker.urls import shown

from .link import AsyncLink, Link, Subscription
from .parsing import AsyncBulkParser, BulkParser
from .redis_link import AsyncRedisLink, RedisLink
from .subscription import RedisSubscription

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
        if (problem := _problem(self.url)) is not None:
            raise ConfigurationError(
                f"A server URL looks like redis://host:6379/0, rediss://… or embedded://DIR; got {shown(self.url)}: "
                f"{problem}."
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown(self.url)!r})"

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


def _problem(url: str) -> str | None:
    """Why it is no URL of a server. Quotes nothing of a password that was not escaped, as errors of parsers do."""
    try:
        _parse_url(url)
        parts = urlsplit(url)
        if parts.scheme == "unix" or "@" not in parts.path:
            return None
    except ValueError as error:
        if "@" not in url:
            return str(error)
    return "the characters / ? # and @ of a password are written %2F %3F %23 and %40"


def _keeping(parsers: list[P], kind: type[P]) -> Callable[..., P]:
    """What redis-py takes for a parser's class; the parser it makes is also put into `parsers`."""

    def make(**options: Any) -> P:
        parser = kind(**options)
        parsers.append(parser)
        return parser

    return make
