"""One connection for many: batches, whole replies for each caller, reconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from headrace_broker.connection import AsyncLink, Command, Link, Reply, Server, Subscription
from headrace_broker.errors import ServerUnreachable
from headrace_broker.shared_link import SharedLink


class Counting:
    """A connector that counts exchanges, and breaks as told."""

    def __init__(self, url: str = "redis://nowhere") -> None:
        self.url = url
        self.exchanges: list[int] = []
        self.connects = 0
        self.fail_connects = 0
        self.fail_exchanges = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def connect_async(self, *, timeout: float = 5.0) -> AsyncLink:
        self.connects += 1
        if self.fail_connects:
            self.fail_connects -= 1
            raise ServerUnreachable("refused")
        return Echo(self)

    def connect(self, *, timeout: float = 5.0) -> Link:
        raise NotImplementedError

    async def subscription(self) -> Subscription:
        raise NotImplementedError


class Echo:
    """Answers each command with itself."""

    def __init__(self, counting: Counting) -> None:
        self._counting = counting

    async def exchange(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        self._counting.exchanges.append(len(commands))
        await self._counting.gate.wait()
        if self._counting.fail_exchanges:
            self._counting.fail_exchanges -= 1
            raise ServerUnreachable("lost")
        return list(commands)

    async def close(self) -> None: ...


@pytest.fixture
async def counting() -> Counting:
    return Counting()


@pytest.fixture
async def shared(counting: Counting) -> AsyncIterator[SharedLink]:
    link = SharedLink(counting)
    yield link
    await link.close()


async def test_callers_share_exchanges_and_get_their_own_replies(shared: SharedLink, counting: Counting) -> None:
    commands: list[list[Command]] = [[("A", n), ("B", n)] for n in range(300)]
    assert await asyncio.gather(*map(shared.exchange, commands)) == commands
    assert counting.exchanges == [256, 256, 88]
    assert counting.connects == 1


async def test_bytes_bound_a_batch_too(shared: SharedLink, counting: Counting) -> None:
    large: list[Command] = [("SET", "k", b"x" * (1 << 20))]
    await asyncio.gather(*(shared.exchange(large) for _ in range(3)))
    assert counting.exchanges == [1, 1, 1]


async def test_a_lost_connection_is_told_to_those_in_the_batch_and_made_anew(
    shared: SharedLink, counting: Counting
) -> None:
    counting.fail_exchanges = 1
    outcomes = await asyncio.gather(shared.exchange([("A",)]), shared.exchange([("B",)]), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ServerUnreachable, ServerUnreachable]
    assert outcomes[0] is not outcomes[1]
    assert await shared.exchange([("C",)]) == [("C",)]
    assert counting.connects == 2


async def test_a_refused_connection_is_told_and_tried_again(shared: SharedLink, counting: Counting) -> None:
    counting.fail_connects = 1
    with pytest.raises(ServerUnreachable, match="refused"):
        await shared.exchange([("A",)])
    assert await shared.exchange([("B",)]) == [("B",)]


async def test_a_caller_that_gives_up_does_not_disturb_the_others(shared: SharedLink, counting: Counting) -> None:
    counting.gate.clear()
    one = asyncio.create_task(shared.exchange([("A",)]))
    other = asyncio.create_task(shared.exchange([("B",)]))
    await asyncio.sleep(0)
    one.cancel()
    await asyncio.sleep(0)
    counting.gate.set()
    assert await other == [("B",)]
    assert one.cancelled() or one.cancelling()


async def test_patience_ends_for_one_caller_only(shared: SharedLink, counting: Counting) -> None:
    counting.gate.clear()
    with pytest.raises(ServerUnreachable, match=r"No reply within 0.01 s"):
        await shared.exchange([("A",)], timeout=0.01)
    counting.gate.set()
    assert await shared.exchange([("B",)]) == [("B",)]


async def test_closing_tells_those_who_wait(counting: Counting) -> None:
    shared = SharedLink(counting)
    counting.gate.clear()
    waiting = asyncio.create_task(shared.exchange([("A",)]))
    await asyncio.sleep(0.01)
    await shared.close()
    with pytest.raises(ServerUnreachable, match="closed by this process"):
        await waiting
    with pytest.raises(ServerUnreachable, match="closed by this process"):
        await shared.exchange([("A",)])


async def test_a_real_server(server_url: str) -> None:
    shared = SharedLink(Server(server_url))
    try:
        replies: list[Any] = await asyncio.gather(*(shared.exchange([("ECHO", str(n))]) for n in range(500)))
    finally:
        await shared.close()
    assert replies == [[str(n).encode()] for n in range(500)]
