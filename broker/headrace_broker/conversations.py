"""Exchanges with the server, written once for `Link` and `AsyncLink`.

A conversation is a generator: it yields a batch of commands, is sent their replies, and returns its answer. It knows
neither connection, clock nor event loop, so a request is written and tested once, whoever makes it.

    namespace = converse(link, open_namespace("headrace"))
    namespace = await converse_async(link, open_namespace("headrace"))
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar, cast

from .connection import AsyncLink, Command, Link, Reply, exchange, raise_error
from .errors import ServerFull

T = TypeVar("T")

Conversation = Generator[Sequence[Command], list[Reply], T]
"""Yields commands; errors of single commands come back as `ServerError` values."""


def converse(link: Link, conversation: Conversation[T]) -> T:
    """Holds the conversation and returns its answer. Raises what it raises, and `ServerUnreachable`."""
    try:
        commands = next(conversation)
        while True:
            commands = conversation.send(exchange(link, commands))
    except StopIteration as end:
        return cast(T, end.value)
    finally:
        conversation.close()


async def converse_async(link: AsyncLink, conversation: Conversation[T]) -> T:
    """Holds the conversation and returns its answer. Raises what it raises, and `ServerUnreachable`."""
    try:
        commands = next(conversation)
        while True:
            commands = conversation.send(await link.exchange(commands))
    except StopIteration as end:
        return cast(T, end.value)
    finally:
        conversation.close()


def ask(*commands: Command) -> Conversation[list[Reply]]:
    """The replies to `commands`, within a conversation: `yield from`. Raises `ServerError` for the first error."""
    replies = yield commands
    return [raise_error(reply) for reply in replies]


def ask_together(*groups: Sequence[Command], tolerant: bool = False) -> Conversation[list[list[Reply]]]:
    """The replies to groups of reads, each group's of one moment.

    Raises `ServerError` for the first error; if `tolerant`, errors of single reads are among the replies.
    A server that is out of memory refuses whatever stands in MULTI, even reads: then they are of nearly one moment.
    """
    commands: list[Command] = []
    for group in groups:
        commands += [("MULTI",), *group, ("EXEC",)]
    try:
        replies = yield from ask(*commands)
    except ServerFull:
        alone = iter((yield [command for group in groups for command in group]))
        return [[_checked(next(alone), tolerant) for _ in group] for group in groups]
    return [
        [_checked(one, tolerant) for one in reply]
        for command, reply in zip(commands, replies, strict=True)
        if command[0] == "EXEC"
    ]


def _checked(reply: Reply, tolerant: bool) -> Reply:
    return reply if tolerant else raise_error(reply)
