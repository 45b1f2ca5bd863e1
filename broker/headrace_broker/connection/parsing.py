"""Replies in bulk: what redis-py reads one by one, at some microseconds of its own each.

A commit of 500 events has some 2,000 replies, most of them QUEUED; taking them from hiredis in one loop saves a fifth
of the orchestrator's time. redis-py's connections still do all the rest: connecting, TLS, authentication, sending.
These parsers are redis-py's own with one more method, handed in by its documented `parser_class`; that they still
fit the installed redis-py is what `tests/broker/test_connection.py` shows on every server.
"""

# redis-py's parsers have no types.
# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any, cast

import redis
import redis.asyncio.connection
import redis.connection

_SyncParser: Any = cast(Any, redis.connection).DefaultParser
_AsyncParser: Any = cast(Any, redis.asyncio.connection).DefaultParser


class BulkParser(_SyncParser):
    """redis-py's hiredis parser, which can also read many. Its errors are redis-py's."""

    def on_connect(self, connection: Any, **options: Any) -> None:
        super().on_connect(connection, **options)  # pyright: ignore[reportUnknownMemberType]
        self._nothing = self._reader.gets()  # what hiredis says when it has no whole reply

    def read_many(self, count: int) -> list[Any]:
        """The next `count` replies; errors of single commands are values."""
        replies: list[Any] = []
        while _take(_open(self._reader), count, self._nothing, replies):
            self.read_from_socket()
        return replies


class AsyncBulkParser(_AsyncParser):
    """The same for asyncio."""

    def on_connect(self, connection: Any, **options: Any) -> None:
        super().on_connect(connection, **options)  # pyright: ignore[reportUnknownMemberType]
        self._nothing = self._reader.gets()

    async def read_many(self, count: int) -> list[Any]:
        """The next `count` replies; errors of single commands are values."""
        replies: list[Any] = []
        while _take(_open(self._reader), count, self._nothing, replies):
            await self.read_from_socket()
        return replies


def _open(reader: Any) -> Any:
    if reader is None:
        raise redis.ConnectionError("The connection is closed.")
    return reader


def _take(reader: Any, count: int, nothing: object, replies: list[Any]) -> bool:
    """Moves whole replies into `replies` until there are `count`; True if more bytes are needed for that."""
    gets = reader.gets
    for _ in range(count - len(replies)):
        reply = gets()
        if reply is nothing:
            return True
        replies.append(reply)
    return False
