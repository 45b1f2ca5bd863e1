"""The simulated server and the way to it: fakeredis in this process, and links that lose requests and replies.

A request that is lost was not done; a request whose reply is lost was done, and its link is dead. Both are
`ServerUnreachable` to the caller, who cannot tell them apart: that is what the fence and request ids are for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any, cast

import fakeredis
import redis

from headrace_broker.connection import AsyncLink, Command, Link, Reply, Subscription
from headrace_broker.connection.redis_link import RedisLink
from headrace_broker.errors import ServerUnreachable

POLL = 0.006
"""How often a simulated blocking read looks, in virtual seconds, if anything was written."""

_READS = frozenset({"GET", "HGETALL", "HMGET", "TIME", "UNWATCH", "WATCH", "XRANGE", "XREAD", "XREADGROUP", "ZRANGE"})
"""Nobody else has more to read after these: what XREADGROUP hands out is one consumer's."""


class Faults:
    """What goes wrong on the way, and how often it did. Rates are per exchange."""

    def __init__(self, random: Random, lost_requests: float = 0.0, lost_replies: float = 0.0) -> None:
        self.random = random
        self.lost_requests = lost_requests
        self.lost_replies = lost_replies
        self.seen: Counter[str] = Counter()

    def draw(self) -> str | None:
        chance = self.random.random()
        if chance < self.lost_requests:
            return "lost request"
        if chance < self.lost_requests + self.lost_replies:
            return "lost reply"
        return None

    def stop(self) -> None:
        self.lost_requests = self.lost_replies = 0.0


class SimServer:
    """A server of the simulated world."""

    def __init__(self) -> None:
        self._server = fakeredis.FakeServer(server_type="redis", version=(7, 0))
        self.writes = 0

    def note(self, commands: Sequence[Command]) -> None:
        """Counts those that may give a blocked read something."""
        self.writes += sum(command[0] not in _READS for command in commands)

    def connection(self) -> Any:
        return cast(Any, fakeredis.FakeRedisConnection)(server=self._server, protocol=2)

    def link(self, connection: Any = None) -> RedisLink:
        connection = connection or self.connection()
        link = RedisLink(connection, lambda count: [_read(connection) for _ in range(count)])
        link.open("sim://")
        return link


def _read(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


class SimConnector:
    """One process's way to the server. `cut` is that process's death: nothing it still sends arrives."""

    url = "sim://"

    def __init__(self, server: SimServer, faults: Faults) -> None:
        self._server = server
        self._faults = faults
        self._alive = True

    def cut(self) -> None:
        self._alive = False

    def connect(self, *, timeout: float = 5.0) -> Link:
        return SimLink(self._server.link(), self, self._server)

    async def connect_async(self, *, timeout: float = 5.0) -> AsyncLink:
        await self.travel()
        return SimAsyncLink(self._server.link(), self, self._server)

    async def subscription(self) -> Subscription:
        await self.travel()
        connection = self._server.connection()
        return SimSubscription(self._server.link(connection), connection, self)

    async def travel(self) -> None:
        """Half a round trip."""
        await asyncio.sleep(self._faults.random.uniform(0.00005, 0.0005))

    def check_alive(self) -> None:
        """Raises `ServerUnreachable` for the dead."""
        if not self._alive:
            raise ServerUnreachable("this process is dead")

    def fate(self) -> str | None:
        """What befalls the next exchange. Raises `ServerUnreachable` for the dead."""
        self.check_alive()
        fate = self._faults.draw()
        if fate is not None:
            self._faults.seen[fate] += 1
        return fate


class SimLink:
    """`Link` without time: what the synchronous loops use."""

    def __init__(self, link: RedisLink, connector: SimConnector, server: SimServer) -> None:
        self._link = link
        self._connector = connector
        self._server = server
        self._reply_is_lost = False

    def send(self, commands: Sequence[Command]) -> None:
        fate = self._connector.fate()
        if fate == "lost request":
            self.close()
            raise ServerUnreachable("the request was lost")
        self._reply_is_lost = fate == "lost reply"
        self._server.note(commands)
        self._link.send(commands)

    def receive(self, count: int) -> list[Reply]:
        replies = self._link.receive(count)
        if self._reply_is_lost:
            self.close()
            raise ServerUnreachable("the reply was lost")
        return replies

    def wait(self, seconds: float) -> bool:
        raise AssertionError("the simulated orchestrator does not block")

    def close(self) -> None:
        self._link.close()


class SimAsyncLink:
    """`AsyncLink` with a round trip of virtual time. Blocking reads look after each write, as nobody else may block."""

    def __init__(self, link: RedisLink, connector: SimConnector, server: SimServer) -> None:
        self._link = link
        self._connector = connector
        self._server = server

    async def exchange(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        done = False
        try:
            await self._connector.travel()
            fate = self._connector.fate()
            if fate == "lost request":
                raise ServerUnreachable("the request was lost")
            replies = await self._do(commands)
            await self._connector.travel()
            if fate == "lost reply":
                raise ServerUnreachable("the reply was lost")
            self._connector.check_alive()
            done = True
            return replies
        finally:
            if not done:
                self._link.close()

    async def _do(self, commands: Sequence[Command]) -> list[Reply]:
        block_ms, plain = _without_block(commands)
        waited, seen = 0.0, -1
        replies: list[Reply] = []
        while True:
            if seen != self._server.writes:
                self._server.note(plain)
                seen = self._server.writes
                self._link.send(plain)
                replies = self._link.receive(len(plain))
            if waited * 1000 >= block_ms or any(reply is not None for reply in replies):
                return replies
            await asyncio.sleep(POLL)
            self._connector.check_alive()
            waited += POLL

    async def close(self) -> None:
        self._link.close()


def _without_block(commands: Sequence[Command]) -> tuple[int, list[Command]]:
    """The commands without BLOCK, and how long they would have blocked (ms)."""
    block_ms = 0
    plain: list[Command] = []
    for command in commands:
        if "BLOCK" in command:
            at = command.index("BLOCK")
            block_ms = int(command[at + 1])
            command = command[:at] + command[at + 2 :]
        plain.append(command)
    return block_ms, plain


class SimSubscription:
    """`Subscription` that looks for messages every now and then."""

    def __init__(self, link: RedisLink, connection: Any, connector: SimConnector) -> None:
        self._link = link
        self._connection = connection
        self._connector = connector
        self._closed = False

    async def subscribe(self, *channels: str) -> None:
        self._send("SUBSCRIBE", channels)

    async def unsubscribe(self, *channels: str) -> None:
        self._send("UNSUBSCRIBE", channels)

    def _send(self, name: str, channels: Sequence[str]) -> None:
        self._connector.check_alive()
        self._link.send([(name, *channels)])

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        while not self._closed:
            self._connector.check_alive()
            if not self._connection.can_read(0):
                await asyncio.sleep(POLL * 5)
                continue
            kind, channel, data = self._link.receive(1)[0]
            if kind == b"message":
                yield channel.decode(), data
        raise ServerUnreachable("the subscription was closed")

    async def close(self) -> None:
        self._closed = True
        self._link.close()
