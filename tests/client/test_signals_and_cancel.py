"""Signals and cancels from a client."""

from __future__ import annotations

from typing import Any, cast

import pytest

from headrace.client import Client
from headrace_broker import messages, values
from headrace_broker.errors import InstanceFinished, InstanceNotFound, PayloadMismatch, UnknownSignal
from headrace_broker.messages import CancelMessage, SignalMessage
from support.flows import Order, approval, gated, loose

from .conftest import Hand


def events(hand: Hand, instance: str) -> list[messages.Message]:
    entries = hand.call("XRANGE", hand.keys(instance).events, "-", "+")
    return [messages.unpack(fields[fields.index(b"m") + 1]) for _, fields in entries]


async def test_a_typed_signal_is_validated_and_encoded(client: Client, hand: Hand) -> None:
    handle = await client.start(gated, 1, id="a")
    await handle.signal(approval, Order(id="42"))
    with pytest.raises(PayloadMismatch, match="payload of signal 'approval' does not validate"):
        await client.signal("a", approval, cast(Any, {"total": 3}))
    (message,) = events(hand, "a")
    assert isinstance(message, SignalMessage)
    assert (message.name, message.value[:1]) == ("approval", b"m")


async def test_a_signal_by_name_is_json(client: Client, hand: Hand) -> None:
    await client.start(gated, 1, id="a")
    await client.signal("a", "approval", {"id": "42"}, actor="bob")
    (message,) = events(hand, "a")
    assert isinstance(message, SignalMessage)
    assert values.parse(message.value) == values.Inline("j", b'{"id":"42"}')
    assert message.actor == "bob"


async def test_a_signal_that_no_step_waits_for_is_refused(client: Client, hand: Hand) -> None:
    await client.start(gated, 1, id="a")
    await client.start(loose, 1, id="b")
    with pytest.raises(UnknownSignal, match="no signal 'aproval': its flow 'gated' waits for approval") as raised:
        await client.signal("a", "aproval", {"id": "42"})
    assert raised.value.ids == {"instance": "a", "flow": "gated", "signal": "aproval"}
    with pytest.raises(UnknownSignal, match="its flow 'loose' waits for no signals at all"):
        await client.signal("b", approval, Order(id="42"))
    with pytest.raises(UnknownSignal):
        await client.signal("a", "aproval", "x" * 100_000)
    assert events(hand, "a") == events(hand, "b") == []
    await client.signal("a", "approval", "x" * 100_000)
    assert len(events(hand, "a")) == 1


async def test_a_definition_is_looked_up_for_the_first_signal_only(client: Client, hand: Hand) -> None:
    await client.start(gated, 1, id="a")
    await client.start(gated, 1, id="b")
    await client.signal("a", approval, Order(id="42"))
    hand.call("DEL", (await client.session.namespace()).keys.definition(gated.definition.digest))
    await client.signal("b", approval, Order(id="43"))
    assert len(events(hand, "b")) == 1


async def test_a_cancel_says_why_and_who(client: Client, hand: Hand) -> None:
    handle = await client.start(loose, 1, id="a")
    await handle.cancel(reason="too late", actor="bob")
    (message,) = events(hand, "a")
    assert isinstance(message, CancelMessage)
    assert (message.reason, message.actor) == ("too late", "bob")


async def test_unknown_and_ended_instances_are_told_apart(client: Client, hand: Hand) -> None:
    with pytest.raises(InstanceNotFound):
        await client.signal("nobody", "go", 1)
    with pytest.raises(InstanceNotFound):
        await client.cancel("nobody")
    hand.end(await client.start(loose, 1, id="a"), "completed")
    with pytest.raises(InstanceFinished):
        await client.signal("a", "go", 1)
    with pytest.raises(InstanceFinished):
        await client.cancel("a")
