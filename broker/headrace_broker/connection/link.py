"""What a connection is to those who are given one: the partition loop, the keeper, the child loop, the client.

The simulator has its own (DESIGN 4, invariant 4).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from headrace_broker.errors import ServerError

Argument = bytes | str | int | float
Command = tuple[Argument, ...]
Reply = Any
"""RESP2: bytes, int, None, or a list of these. Errors are `ServerError` values where a method says so."""


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


def is_wrong_type(reply: Reply) -> bool:
    """Whether a command met a key of another type: a strange hand was there."""
    return isinstance(reply, ServerError) and "wrong kind of value" in str(reply)


def raise_error(reply: Reply) -> Reply:
    """The reply, unless it is an error: then raises it."""
    if isinstance(reply, ServerError):
        raise reply
    return reply
