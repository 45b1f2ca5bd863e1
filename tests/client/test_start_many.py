"""Many starts in few round trips, each with an answer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

from headrace import Start, bulk
from headrace.client import Client
from headrace_broker.codec import INLINE_LIMIT
from headrace_broker.errors import (
    FlowNotFound,
    InstanceExists,
    InvalidInstanceId,
    InvalidRequest,
    PayloadMismatch,
    PayloadNotSerializable,
)
from support.flows import Order, loose, orders
from support.proxy import Cut, CuttingProxy
from support.scripts import preload
from support.waiting import wait_until_async

from .conftest import Hand


async def test_the_answers_come_in_the_order_of_the_inputs(client: Client, hand: Hand) -> None:
    inputs = [Start(Order(id=str(n)), id=f"o{n}") for n in range(1200)]
    answers = [answer async for answer in client.start_many(orders, inputs, actor="import")]
    assert [(answer.number, answer.id) for answer in answers] == [(n, f"o{n}") for n in range(1200)]
    assert not any(answer.error or answer.existing for answer in answers)
    assert len({answer.handle.incarnation for answer in answers}) == 1200
    for answer in (answers[0], answers[700], answers[-1]):
        snapshot = await answer.handle.get()
        assert (snapshot.status, snapshot.flow, snapshot.actor) == ("queued", "orders", "import")
        assert snapshot.incarnation == answer.handle.incarnation


async def test_what_is_refused_is_told_and_stops_no_other(client: Client) -> None:
    live = await client.start(orders, Order(id="x"), id="live")
    bad: Any = {"id": "1", "total": "many"}
    inputs = [Start(Order(id="0"), "a"), bad, Start(Order(id="2"), ""), Start(Order(id="3"), "live")]
    inputs += [Start(Order(id="4"), "a"), Order(id="5")]
    answers = [answer async for answer in client.start_many(orders, inputs)]
    errors = [type(answer.error) for answer in answers]
    assert errors == [type(None), PayloadMismatch, InvalidInstanceId, InstanceExists, InstanceExists, type(None)]
    assert [answer.id for answer in answers[:5]] == ["a", None, "", "live", "a"]
    with pytest.raises(InstanceExists, match="'live' is live"):
        _ = answers[3].handle
    assert {item.id for item in (await client.list()).items} == {"live", "a", answers[5].id}
    again = [answer async for answer in client.start_many(orders, inputs[3:4], conflict="use_existing")]
    assert (again[0].existing, again[0].handle.incarnation) == (True, live.incarnation)


async def test_a_handle_has_the_flows_output_type(client: Client, hand: Hand) -> None:
    (answer,) = [answer async for answer in client.start_many(orders, [Order(id="1")])]
    hand.complete(answer.handle, {"order": 7})
    with pytest.raises(PayloadMismatch):
        await answer.handle.result(5)


async def test_by_name_the_inputs_are_json_that_fits_the_schema(client: Client) -> None:
    with pytest.raises(FlowNotFound):
        await anext(client.start_many("orders", []))
    await client.start(orders, Order(id="first"))
    inputs: list[Any] = [{"id": "1"}, {"total": 1}, Start({"id": "3"}, id="c"), object()]
    answers = [answer async for answer in client.start_many("orders", inputs)]
    assert [type(answer.error) for answer in answers] == [
        *(type(None), PayloadMismatch, type(None), PayloadNotSerializable)
    ]


async def test_no_inputs_no_answers(client: Client) -> None:
    assert [answer async for answer in client.start_many(orders, [])] == []


async def test_inputs_are_taken_as_they_are_needed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MAX_STARTS", 10)
    taken: list[int] = []

    def inputs() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    answers = client.start_many(loose, inputs())
    assert not taken
    for _ in range(11):
        await anext(answers)
    assert len(taken) == 20
    await answers.aclose()
    assert len((await client.list()).items) == 20


async def test_large_inputs_go_out_a_few_at_a_time(client: Client, hand: Hand) -> None:
    taken: list[int] = []

    def inputs() -> Iterator[Start[bytes]]:
        for number in range(12):
            taken.append(number)
            yield Start(b"x" * 300_000, id=f"i{number}")

    answers = client.start_many(loose, inputs())
    first = await anext(answers)
    assert len(taken) == 4  # the first that passes 1 MiB is the last of its round trip
    assert len([answer async for answer in answers]) == 11
    hand.complete(first.handle, b"x" * (INLINE_LIMIT + 1))
    assert len(cast(bytes, await first.handle.result(5))) == INLINE_LIMIT + 1


async def test_an_async_source_that_pauses_holds_nothing_up(client: Client) -> None:
    more = asyncio.Event()

    async def inputs() -> AsyncIterator[int]:
        async with asyncio.timeout(30):  # which belongs to the task that enters it
            yield 0
            yield 1
            await more.wait()
            yield 2

    answers = client.start_many(loose, inputs())
    async with asyncio.timeout(10):
        assert [(await anext(answers)).number, (await anext(answers)).number] == [0, 1]
        last = asyncio.create_task(cast(Any, anext(answers)))
        more.set()
        assert (await last).number == 2
        assert [answer async for answer in answers] == []


async def test_a_quick_async_source_is_read_a_bounded_way_ahead(client: Client) -> None:
    taken: list[int] = []

    async def inputs() -> AsyncIterator[int]:
        for number in range(5000):
            taken.append(number)
            yield number

    answers = client.start_many(loose, inputs())
    assert (await anext(answers)).number == 0
    assert len(taken) <= 2 * bulk.MAX_STARTS
    assert len([answer async for answer in answers]) == 4999


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_where_the_inputs_raise_what_came_before_is_started(client: Client, asynchronous: bool) -> None:
    def inputs() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the file is torn")

    async def later() -> AsyncIterator[int]:
        for number in inputs():
            yield number

    answers = client.start_many(loose, later() if asynchronous else inputs())
    assert [(await anext(answers)).number, (await anext(answers)).number] == [0, 1]
    with pytest.raises(OSError, match="torn"):
        await anext(answers)
    assert len((await client.list()).items) == 2


async def test_a_consumer_that_leaves_stops_the_source(client: Client) -> None:
    left = asyncio.Event()

    async def inputs() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(600)
        finally:
            left.set()

    answers = client.start_many(loose, inputs())
    await anext(answers)
    await answers.aclose()
    await wait_until_async(left.is_set, why="the source to be closed")


@pytest.mark.parametrize("inputs", ["text", b"bytes", {"id": "1"}, 3, None])
async def test_what_is_no_series_of_inputs_is_refused(client: Client, inputs: Any) -> None:
    with pytest.raises(InvalidRequest, match="Inputs are an iterable, with one input for each instance; got "):
        await anext(client.start_many(loose, inputs))


async def test_a_wrong_actor_is_an_error_of_the_call(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="An actor has at most 256 bytes"):
        await anext(client.start_many(loose, [1], actor="x" * 257))


async def test_what_was_asked_when_a_reply_was_lost_is_done_once(server_url: str, namespace: str, hand: Hand) -> None:
    preload(server_url)
    with CuttingProxy(server_url) as proxy:
        async with Client(proxy.url, namespace, retry_for="10s") as client:
            await client.start(loose, 0, id="before")
            proxy.cut(Cut(request=b"EVALSHA"))
            answers = [answer async for answer in client.start_many(loose, (Start(n, f"i{n}") for n in range(100)))]
            assert proxy.cuts == 1
            assert [answer.error for answer in answers] == [None] * 100
            assert len((await client.list(limit=1000)).items) == 101
            namespace_ = await client.session.namespace()
    assert sum(hand.call("XLEN", keys.starts) for keys in namespace_.all_partitions) == 101
