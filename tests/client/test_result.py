"""Results: pushed, typed, and the right error for what did not complete."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from headrace import handle as handles
from headrace.client import Client
from headrace_broker import wire
from headrace_broker.errors import InstanceBlocked, InstanceCancelled, InstanceFailed, InstanceNotFound, PayloadMismatch
from support.flows import Order, Receipt, loose, orders

from .conftest import Hand

AT = datetime(2026, 1, 31, tzinfo=UTC)


async def test_a_result_has_the_flows_type(client: Client, hand: Hand) -> None:
    handle = await client.start(orders, Order(id="42"), id="a")
    hand.complete(handle, {"order": "42", "at": AT})
    assert await handle.result() == Receipt(order="42", at=AT)
    assert await client.handle("a", orders).result() == Receipt(order="42", at=AT)
    assert await client.handle("a").result() == {"order": "42", "at": AT}


async def test_a_result_is_pushed(client: Client, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "_RECHECK_SECONDS", 600.0)
    handle = await client.start(loose, 1)
    waiting = asyncio.create_task(handle.result("30s"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    begun = time.monotonic()
    hand.complete(handle, "done")
    assert await waiting == "done"
    assert time.monotonic() - begun < 5


async def test_many_wait_over_one_subscription(client: Client, hand: Hand) -> None:
    started = await asyncio.gather(*(client.start(loose, n) for n in range(25)))
    waiting = [asyncio.create_task(handle.result("30s")) for handle in (*started, *started)]
    await asyncio.sleep(0.2)
    for number, handle in enumerate(started):
        hand.complete(handle, number)
    assert await asyncio.gather(*waiting) == [*range(25), *range(25)]


async def test_a_missed_message_is_made_up_for(client: Client, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "_RECHECK_SECONDS", 0.05)
    handle = await client.start(loose, 1)
    waiting = asyncio.create_task(handle.result("30s"))
    await asyncio.sleep(0.1)
    hand.complete(handle, "done", publish=False)
    assert await waiting == "done"


async def test_a_large_result_is_fetched(client: Client, hand: Hand) -> None:
    handle = await client.start(loose, 1)
    hand.complete(handle, "x" * 100_000)
    assert await handle.result() == "x" * 100_000


async def test_an_output_that_does_not_fit_is_told(client: Client, hand: Hand) -> None:
    handle = await client.start(orders, Order(id="42"))
    hand.complete(handle, {"order": 7})
    with pytest.raises(PayloadMismatch):
        await handle.result()


async def test_a_failure_comes_with_type_message_and_the_workers_traceback(client: Client, hand: Hand) -> None:
    handle = await client.start(loose, 1, id="a")
    hand.fail(handle, "ValueError", "negative", "Traceback (most recent call last): …", "charge")
    with pytest.raises(InstanceFailed, match="'a' failed at charge: ValueError: negative") as raised:
        await handle.result()
    assert raised.value.ids["type"] == "ValueError"
    assert raised.value.ids["node"] == "charge"
    assert "Traceback" in str(raised.value.ids["traceback"])
    assert "On the worker:\nTraceback" in raised.value.__notes__[0]


async def test_a_cancelled_and_a_blocked_instance_have_errors_of_their_own(client: Client, hand: Hand) -> None:
    cancelled = await client.start(loose, 1, id="a")
    hand.end(cancelled, "cancelled", error=wire.pack(["too late"]))
    with pytest.raises(InstanceCancelled, match="'a' was cancelled: too late"):
        await cancelled.result()
    blocked = await client.start(loose, 1, id="b")
    hand.end(blocked, "blocked", error=wire.pack(["no definition"]))
    with pytest.raises(InstanceBlocked, match="'b' is blocked: no definition"):
        await blocked.result()


async def test_patience_ends(client: Client) -> None:
    handle = await client.start(loose, 1, id="a")
    with pytest.raises(TimeoutError, match="'a' has not ended after 50 ms; it goes on"):
        await handle.result("50ms")
    assert (await handle.get()).status == "queued"


async def test_an_unknown_instance(client: Client) -> None:
    with pytest.raises(InstanceNotFound):
        await client.handle("nobody").result(1)
    with pytest.raises(InstanceNotFound):
        await client.get("nobody")
    with pytest.raises(InstanceNotFound):
        await client.history("nobody")
