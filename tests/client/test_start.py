"""Starting: durable and visible with no orchestrator; checked where the caller sees the error."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

import headrace.starting
from headrace.client import Client
from headrace_broker import messages, values
from headrace_broker.definitions import Definition
from headrace_broker.errors import (
    FlowNotFound,
    InstanceExists,
    InstanceFinished,
    InvalidInstanceId,
    PayloadMismatch,
    PayloadNotSerializable,
    PayloadTooLarge,
)
from headrace_broker.messages import StartMessage
from support.flows import Order, loose, orders

from .conftest import Hand


def inputs(hand: Hand, instance: str) -> list[StartMessage]:
    entries = hand.call("XRANGE", hand.keys(instance).starts, "-", "+")
    found = [messages.unpack(fields[fields.index(b"m") + 1]) for _, fields in entries]
    return [message for message in found if isinstance(message, StartMessage) and message.instance == instance]


async def test_a_start_is_durable_and_visible_without_an_orchestrator(client: Client, hand: Hand) -> None:
    handle = await client.start(orders, Order(id="42"), id="order-42", actor="ann")
    snapshot = await handle.get()
    assert (snapshot.status, snapshot.flow, snapshot.actor, snapshot.run) == ("queued", "orders", "ann", 1)
    assert [item.id for item in (await client.list()).items] == ["order-42"]
    assert await handle.history() == []
    (message,) = inputs(hand, "order-42")
    assert message.definition == orders.definition.digest


async def test_its_definition_is_stored_before_it(client: Client, hand: Hand, namespace: str) -> None:
    await client.start(orders, Order(id="42"), id="order-42")
    data = hand.call("GET", f"{namespace}:def:{orders.definition.digest}")
    assert Definition.from_wire(data) == orders.definition
    (flow,) = await client.flows()
    assert (flow.name, flow.version, flow.digest) == ("orders", 1, orders.definition.digest)


async def test_an_id_is_made_if_none_is_given(client: Client) -> None:
    first = await client.start(orders, Order(id="42"))
    second = await client.start(orders, Order(id="42"))
    assert len(first.id) == 36
    assert first.id != second.id


async def test_a_live_id_is_refused_or_taken(client: Client) -> None:
    first = await client.start(orders, Order(id="42"), id="a")
    with pytest.raises(InstanceExists, match="'a' is live: flow 'orders', queued"):
        await client.start(orders, Order(id="42"), id="a")
    again = await client.start(orders, Order(id="43"), id="a", conflict="use_existing")
    assert again.incarnation == first.incarnation


async def test_an_ended_id_is_free(client: Client, hand: Hand) -> None:
    first = await client.start(loose, 1, id="a")
    hand.complete(first, "first")
    second = await client.start(loose, 2, id="a")
    hand.complete(second, "second")
    assert (await first.result(5), await second.result(5)) == ("first", "second")
    assert await client.handle("a").result(5) == "second"


async def test_a_handle_of_an_earlier_use_touches_no_later_one(client: Client, hand: Hand) -> None:
    first = await client.start(loose, 1, id="a")
    hand.complete(first, "first")
    second = await client.start(loose, 2, id="a")
    with pytest.raises(InstanceFinished, match="used anew"):
        await first.cancel()
    with pytest.raises(InstanceFinished):
        await first.signal("x")
    assert hand.call("XLEN", hand.keys("a").events) == 0
    await second.cancel()
    assert hand.call("XLEN", hand.keys("a").events) == 1


async def test_deleting_an_earlier_use_by_force_cancels_no_later_one(client: Client, hand: Hand) -> None:
    first = await client.start(loose, 1, id="a")
    hand.complete(first, "first")
    await client.start(loose, 2, id="a")
    await client.delete("a", first.incarnation, force=True)
    assert (await client.get("a")).status == "queued"


@pytest.mark.parametrize("id", ["", "a\x00b", "x" * 257])
async def test_a_bad_id_is_refused(client: Client, id: str) -> None:
    with pytest.raises(InvalidInstanceId):
        await client.start(orders, Order(id="42"), id=id)


async def test_an_input_is_validated_with_the_flows_type(client: Client, hand: Hand) -> None:
    with pytest.raises(PayloadMismatch, match=r"input of flow 'orders' does not validate: total: Input should be"):
        await client.start(orders, cast(Any, {"id": "42", "total": "many"}), id="a")
    assert (await client.list()).items == ()
    await client.start(orders, cast(Any, {"id": "42"}), id="a")
    (message,) = inputs(hand, "a")
    assert values.parse(message.value) == values.Inline("m", b"\x82\xa2id\xa242\xa5total\x01")


async def test_an_input_that_cannot_be_carried_is_refused(client: Client) -> None:
    with pytest.raises(PayloadNotSerializable):
        await client.start(loose, object())
    with pytest.raises(PayloadTooLarge):
        await client.start(loose, b"x" * (1 << 21))
    assert (await client.list()).items == ()


async def test_an_input_nests_128_levels_by_flow_and_by_name(client: Client) -> None:
    deep: object = 1
    for _ in range(128):
        deep = [deep]
    await client.start(loose, deep)
    await client.start("loose", deep)
    for flow in (loose, "loose"):
        with pytest.raises(PayloadNotSerializable, match="nested deeper than 128 levels"):
            await client.start(flow, [deep])


async def test_by_name_the_current_flow_is_used_and_its_schema_holds(client: Client, hand: Hand) -> None:
    await client.start(orders, Order(id="1"), id="first")
    await client.start("orders", {"id": "2"}, id="second")
    await client.start("orders", Order(id="3"), id="third")
    (message,) = inputs(hand, "second")
    assert message.definition == orders.definition.digest
    assert values.parse(message.value) == values.Inline("j", b'{"id":"2"}')
    with pytest.raises(PayloadMismatch, match=r"total: 'many' is not of type 'integer'"):
        await client.start("orders", {"id": "2", "total": "many"})
    with pytest.raises(PayloadMismatch, match="'id' is a required property"):
        await client.start("orders", {})


async def test_by_name_only_json_is_carried(client: Client) -> None:
    await client.start(loose, 1)
    for bad in (float("nan"), object()):
        with pytest.raises(PayloadNotSerializable, match="cannot be written as JSON"):
            await client.start("loose", bad)


async def test_an_unknown_flow_lists_those_there_are(client: Client) -> None:
    with pytest.raises(FlowNotFound, match="there are none"):
        await client.start("orders", {})
    await client.start(orders, Order(id="1"))
    with pytest.raises(FlowNotFound, match=r"No flow named 'order' .*there are: orders"):
        await client.start("order", {})


@pytest.mark.real_only
async def test_a_thousand_starts_at_once_are_quick(client: Client) -> None:
    await client.start(orders, Order(id="warm"))
    begun = time.perf_counter()
    await asyncio.gather(*(client.start(orders, Order(id=str(n)), id=f"o{n}") for n in range(1000)))
    assert time.perf_counter() - begun < 2.0  # 0.1 s on an idle machine
    assert len((await client.list(limit=1000)).items) == 1000


async def test_a_definition_is_stored_again_after_a_day(
    client: Client, hand: Hand, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing may refer to an old one for a week, and then it is swept."""
    key = f"{namespace}:def:{orders.definition.digest}"
    for again in (False, True):
        if again:
            monkeypatch.setattr(headrace.starting, "STORE_AGAIN_SECONDS", 0)
            client = Client(client.session.url, namespace)
        await client.start(orders, Order(id="42"))
        hand.call("DEL", key)
        await client.start(orders, Order(id="42"))
        assert hand.call("EXISTS", key) == again
    await client.close()
