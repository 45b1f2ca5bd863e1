"""Payloads at their limits, by every way in that a client has; and what JSON does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from headrace import Flow, Signal
from headrace.client import Client
from headrace_broker import codec, messages, values
from headrace_broker.codec import INLINE_LIMIT, PAYLOAD_LIMIT
from headrace_broker.errors import PayloadNotSerializable, PayloadTooLarge
from headrace_broker.messages import SignalMessage, StartMessage
from headrace_broker.values import Value

from .conftest import Hand

SIZES: Final = [INLINE_LIMIT - 1, INLINE_LIMIT, INLINE_LIMIT + 1, PAYLOAD_LIMIT - 1, PAYLOAD_LIMIT]
go: Signal[Any] = Signal("go", object)
edges: Flow[Any, Any] = Flow("edges").wait_for_signal(go)


def brought(hand: Hand, instance: str) -> list[Value]:
    """The values of what lies in the inboxes."""
    keys = hand.keys(instance)
    rows = [*hand.call("XRANGE", keys.starts, "-", "+"), *hand.call("XRANGE", keys.events, "-", "+")]
    found = [messages.unpack(fields[fields.index(b"m") + 1]) for _, fields in rows]
    return [
        found.value for found in found if isinstance(found, StartMessage | SignalMessage) and found.instance == instance
    ]


def read(hand: Hand, value: Value) -> tuple[bool, Any]:
    """Whether it is inline, and what it says."""
    parsed = values.parse(value)
    assert isinstance(parsed, values.Inline | values.Reference)
    data = parsed.payload if isinstance(parsed, values.Inline) else hand.call("GET", parsed.key)
    return isinstance(parsed, values.Inline), codec.decode_json(data) if parsed.codec == "j" else codec.decode(data)


def packed(size: int) -> str:
    """A text of so many bytes on the wire, as MessagePack."""
    for head in (3, 5):
        if len(codec.encode("x" * (size - head))) == size:
            return "x" * (size - head)
    raise AssertionError(size)


def quoted(size: int) -> str:
    """The same as JSON; the é has two bytes."""
    return "é" + "x" * (size - 4)


WAYS: Final = [pytest.param(edges, go, packed, id="typed"), pytest.param("edges", "go", quoted, id="by name")]


@pytest.mark.parametrize(("flow", "signal", "text"), WAYS)
async def test_inline_by_reference_or_too_large(
    client: Client, hand: Hand, flow: Any, signal: Any, text: Callable[[int], str]
) -> None:
    await client.start(edges, None, id="known")
    for number, size in enumerate(SIZES):
        await client.start(flow, text(size), id=f"i{number}")
        await client.signal(f"i{number}", signal, text(size))
        for value in brought(hand, f"i{number}"):
            assert read(hand, value) == (size <= INLINE_LIMIT, text(size))
    for refused in (
        client.start(flow, text(PAYLOAD_LIMIT + 1), id="large"),
        client.signal("i0", signal, text(PAYLOAD_LIMIT + 1)),
    ):
        with pytest.raises(PayloadTooLarge, match="has 1,048,577 bytes, the limit is 1,048,576") as caught:
            await refused
        assert caught.value.code == "payload_too_large"
    assert len((await client.list()).items) == 1 + len(SIZES)
    assert len(brought(hand, "i0")) == 2


def circle() -> Any:
    items: list[Any] = [1]
    items.append({"again": items})
    return items


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (float("nan"), "Out of range float values are not JSON compliant"),
        ([float("-inf")], "Out of range"),
        (b"\xff", "invalid utf-8"),
        ("\ud800", "surrogates not allowed"),
        ({"\udfff": 1}, "surrogates not allowed"),
        (10**5000, "4300 digits"),
        (circle(), "Circular reference"),
        (object(), "unknown type"),
    ],
    ids=lambda value: str(type(value).__name__),
)
async def test_what_json_does_not_have_is_refused_by_name(client: Client, given: Any, reason: str) -> None:
    await client.start(edges, None, id="known")
    for refused in (client.start("edges", given), client.signal("known", "go", given)):
        with pytest.raises(PayloadNotSerializable, match=reason) as caught:
            await refused
        assert caught.value.code == "payload_not_serializable"
        assert len(str(caught.value)) < 400
    assert len((await client.list()).items) == 1


@pytest.mark.parametrize(
    "given",
    [float("-inf"), b"\xff\xfe", 2**200, -(2**200), {1: {(2, 3): None}, None: {4}}, (), [], {}, "", {"k" * 10_000: 1}],
    ids=lambda value: str(type(value).__name__),
)
async def test_with_the_flow_it_is_carried_as_it_is(client: Client, hand: Hand, given: Any) -> None:
    await client.start(edges, given, id="a")
    await client.signal("a", go, given)
    for value in brought(hand, "a"):
        _, found = read(hand, value)
        assert found == given
        assert type(found) is type(given)


async def test_by_name_a_large_number_is_carried_and_keys_become_text(client: Client, hand: Hand) -> None:
    await client.start(edges, None, id="known")
    await client.start("edges", {"n": -(2**200), 1: {"é": []}}, id="a")
    assert read(hand, brought(hand, "a")[0]) == (True, {"n": -(2**200), "1": {"é": []}})
