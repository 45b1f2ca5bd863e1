"""A history that is followed: all of it, each event once, live, and on after a break."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from headrace import following
from headrace.client import Client
from headrace_broker.errors import InstanceNotFound, InvalidRequest
from headrace_broker.queries import HistoryEvent
from support.flows import loose
from support.proxy import CuttingProxy
from support.scripts import preload
from support.waiting import wait_until_async

from .conftest import Hand


class Follower:
    """Reads events in a task of its own."""

    def __init__(self, events: AsyncIterator[HistoryEvent]) -> None:
        self.seen: list[HistoryEvent] = []
        self.task = asyncio.create_task(self._read(events))

    async def _read(self, events: AsyncIterator[HistoryEvent]) -> None:
        async for event in events:
            self.seen.append(event)

    @property
    def signals(self) -> list[str]:
        return [event.fields["signal"] for event in self.seen]

    async def saw(self, count: int) -> None:
        await wait_until_async(lambda: len(self.seen) >= count or self.task.done(), why=f"{count} events")


async def test_what_there_is_comes_first_then_what_happens_until_the_end(client: Client, hand: Hand) -> None:
    handle = await client.start(loose, 1, id="a")
    hand.record(handle, "1", "2")
    follower = Follower(client.handle("a").events())
    await follower.saw(2)
    for signal in ("3", "4"):
        hand.record(handle, signal)
        await follower.saw(int(signal))
    hand.record(handle, "5", "6")
    hand.complete(handle, None)
    await asyncio.wait_for(follower.task, 10)
    assert follower.signals == ["1", "2", "3", "4", "5", "6"]


async def test_an_ended_instance_is_told_whole_and_at_once(client: Client, hand: Hand) -> None:
    handle = await client.start(loose, 1, id="a")
    hand.record(handle, "1")
    hand.complete(handle, None)
    assert [event.kind async for event in handle.events()] == ["signal_received"]


async def test_the_end_is_pushed(client: Client, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_FIRST_PAUSE", 600.0)
    monkeypatch.setattr(following, "_LONGEST_PAUSE", 600.0)
    handle = await client.start(loose, 1, id="a")
    hand.record(handle, "1")
    follower = Follower(handle.events())
    await follower.saw(1)
    await asyncio.sleep(0.1)
    begun = time.monotonic()
    hand.complete(handle, None)
    await asyncio.wait_for(follower.task, 10)
    assert time.monotonic() - begun < 5


async def test_it_goes_on_behind_a_position(client: Client, hand: Hand) -> None:
    handle = await client.start(loose, 1, id="a")
    hand.record(handle, "1", "2", "3")
    hand.record(handle, "4")
    events = handle.events()
    first = await anext(events)
    second = await anext(events)
    await events.aclose()
    hand.complete(handle, None)
    for position, rest in ((first.position, ["2", "3", "4"]), (second.position, ["3", "4"])):
        assert [event.fields["signal"] async for event in handle.events(after=position)] == rest
        assert [event.fields["signal"] async for event in client.handle("a").events(position)] == rest
    with pytest.raises(InvalidRequest, match="A position is what"):
        handle.events(after="yesterday")


async def test_no_event_is_lost_or_told_twice_while_connections_break(
    server_url: str, namespace: str, hand: Hand
) -> None:
    preload(server_url)
    signals = [str(number) for number in range(60)]
    with CuttingProxy(server_url) as proxy:
        async with Client(proxy.url, namespace, retry_for="10s") as client:
            handle = await client.start(loose, 1, id="a")
            follower = Follower(handle.events())
            for number, signal in enumerate(signals):
                hand.record(handle, signal)
                if number % 20 == 10:
                    proxy.cut_all()
                await asyncio.sleep(0.005)
            proxy.go_down()
            hand.complete(handle, None)  # which is published to nobody
            await asyncio.sleep(0.1)
            proxy.come_up()
            await asyncio.wait_for(follower.task, 20)
    assert follower.signals == signals


async def test_a_blocked_instance_is_followed_further(client: Client, hand: Hand) -> None:
    handle = await client.start(loose, 1, id="a")
    hand.end(handle, "blocked")
    follower = Follower(handle.events())
    hand.record(handle, "1")
    await follower.saw(1)
    assert not follower.task.done()
    hand.complete(handle, None)
    await asyncio.wait_for(follower.task, 10)


async def test_an_unknown_and_a_deleted_instance_are_told(client: Client, hand: Hand) -> None:
    with pytest.raises(InstanceNotFound):
        await anext(client.handle("nobody").events())
    handle = await client.start(loose, 1, id="a")
    hand.record(handle, "1")
    follower = Follower(handle.events())
    await follower.saw(1)
    keys = hand.keys("a")
    hand.call("DEL", keys.header("a"), keys.history(handle.incarnation or ""))
    with pytest.raises(InstanceNotFound):
        await asyncio.wait_for(follower.task, 10)
    hand.call("DEL", keys.by_status("queued"), keys.by_flow("loose"), keys.starts)
