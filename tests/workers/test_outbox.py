"""Results survive lost replies and servers that refuse them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from headrace import task
from headrace_broker import values
from headrace_broker.connection import AsyncLink, Command, Reply, Server, call
from headrace_broker.errors import ServerError, ServerUnreachable
from headrace_broker.messages import ResultMessage
from support.feeding import INCARNATION, Feed
from support.waiting import wait_until_async

from .conftest import Children

pytestmark = pytest.mark.real_only

Spoil = Callable[[Sequence[Command], list[Reply]], list[Reply]]
"""Changes replies, or raises in their place."""


class SpoiledLink:
    """A link whose settling transactions go wrong: the server does them, and the caller does not learn of it."""

    def __init__(self, link: AsyncLink, spoil: Spoil) -> None:
        self._link = link
        self._spoil = spoil

    async def exchange(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        replies = await self._link.exchange(commands, timeout=timeout)
        if commands[0] != ("MULTI",):
            return replies
        try:
            return self._spoil(commands, replies)
        except ServerUnreachable:
            await self._link.close()
            raise

    async def close(self) -> None:
        await self._link.close()


class SpoiledServer(Server):
    spoil: Spoil

    async def connect_async(self, *, timeout: float = 5.0) -> AsyncLink:
        return SpoiledLink(await super().connect_async(timeout=timeout), self.spoil)


def spoil(children: Children, how: Spoil) -> None:
    server = SpoiledServer(children.connector.url)
    object.__setattr__(server, "spoil", how)
    children.connector = server


def nothing_wrong(commands: Sequence[Command], replies: list[Reply]) -> list[Reply]:
    return replies


@task
async def echo(text: str) -> str:
    return text


async def test_a_result_whose_reply_was_lost_is_sent_again(feed: Feed, children: Children) -> None:
    lost = 0

    def lose_two(commands: Sequence[Command], replies: list[Reply]) -> list[Reply]:
        nonlocal lost
        if lost < 2:
            lost += 1
            raise ServerUnreachable("The reply was lost.")
        return replies

    spoil(children, lose_two)
    children.start(echo)
    handed = [feed.hand_out("echo", "x") for _ in range(20)]
    for message in handed:
        assert (await feed.result_async(message)).outcome == "completed"
    await wait_until_async(feed.settled, why="all is settled")
    await wait_until_async(lambda: lost == 2)


async def test_each_sending_names_a_large_value_anew(feed: Feed, children: Children) -> None:
    """The commit that drops the second copy deletes the value it names: it must not be the adopted one."""
    sent = 0

    def lose_one(commands: Sequence[Command], replies: list[Reply]) -> list[Reply]:
        nonlocal sent
        sent += 1
        if sent == 1:
            raise ServerUnreachable("The reply was lost.")
        return replies

    spoil(children, lose_one)
    children.start(echo)
    message = feed.hand_out("echo", "y" * 50_000)
    results = await wait_until_async(
        lambda: found if len(found := feed.of(ResultMessage)) == 2 else None, why="both copies"
    )
    assert results is not None
    keys = {found.key for result in results if isinstance(found := values.parse(result.value or b""), values.Reference)}
    assert len(keys) == 2
    for key in keys:
        assert key.startswith(feed.namespace.of(message.instance).value(INCARNATION, ""))
        assert call(feed.link, "PTTL", key) > 3_500_000


async def test_a_server_that_refuses_results_gets_them_later_and_is_asked_for_no_more(
    feed: Feed, children: Children
) -> None:
    full = True
    refusals = asyncio.Event()

    class Full(SpoiledServer):
        async def connect_async(self, *, timeout: float = 5.0) -> AsyncLink:
            return FullLink(await super().connect_async(timeout=timeout), self.spoil)

    class FullLink(SpoiledLink):
        async def exchange(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
            if full and commands[0] == ("MULTI",):
                refusals.set()
                oom = ServerError("OOM command not allowed when used memory > 'maxmemory'.")
                return [oom] * (len(commands) - 1) + [ServerError("Transaction discarded because of previous errors.")]
            return await super().exchange(commands, timeout=timeout)

    server = Full(children.connector.url)
    object.__setattr__(server, "spoil", nothing_wrong)
    children.connector = server
    children.start(echo)
    first = feed.hand_out("echo", "first")
    await refusals.wait()
    later = feed.hand_out("echo", "later")
    refusals.clear()
    await refusals.wait()
    assert feed.pending() <= 2
    assert feed.results() == {}
    full = False
    for message in (first, later):
        assert (await feed.result_async(message)).outcome == "completed"
