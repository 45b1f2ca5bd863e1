"""Signals and cancels from a client."""

from __future__ import annotations

from typing import Any, cast

import pytest

from headrace.client import Client
from headrace_broker import messages, values
from headrace_broker.errors import InstanceFinished, InstanceNotFound, PayloadMismatch
from headrace_broker.messages import CancelMessage, SignalMessage
from support.flows import Order, approval, loose

from .conftest import Hand


def events(hand: Hand, instance: str) -> list[messages.Message]:
    entries = hand.call("XRANGE", hand.keys(instance).events, "-", "+")
    return [messages.unpack(fields[fields.index(b"m") + 1]) for _, fields in entries]


async def test_a_typed_signal_is_validated_and_encoded(client: Client, hand: Hand) -> None:
    handle = await client.start(loose, 1, id="a")
    await handle.signal(approval, Order(id="42"))
    with pytest.raises(PayloadMismatch, match="payload of signal 'approval' does not validate"):
        await client.signal("a", approval, cast(Any, {"total": 3}))
    (message,) = events(hand, "a")
    assert isinstance(message, SignalMessage)
    assert (message.name, message.value[:1]) == ("approval", b"m")


async def test_a_signal_by_name_is_json(client: Client, hand: Hand) -> None:
    await client.start(loose, 1, id="a")
    await client.signal("a", "approval", {"id": "42"}, actor="bob")
    (message,) = events(hand, "a")
    assert isinstance(message, SignalMessage)
    assert values.parse(message.value) == values.Inline("j", b'{"id":"42"}')
    assert message.actor == "bob"


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
