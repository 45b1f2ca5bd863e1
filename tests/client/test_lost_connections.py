"""What a client does when the server or a reply is gone: asks again, and it is done once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from headrace.client import Client
from headrace_broker.errors import ConfigurationError, ServerUnreachable
from support.flows import gated, loose
from support.ports import free_port
from support.proxy import Cut, CuttingProxy
from support.scripts import preload

from .conftest import Hand


async def test_a_start_whose_reply_was_lost_is_done_once(server_url: str, namespace: str, hand: Hand) -> None:
    preload(server_url)
    with CuttingProxy(server_url) as proxy:
        async with Client(proxy.url, namespace, retry_for="10s") as client:
            await client.start(loose, 0, id="before")
            proxy.cut(Cut(request=b"EVALSHA"))
            handle = await client.start(loose, 1, id="a")
            assert (await handle.get()).status == "queued"
            assert len((await client.list()).items) == 2
    assert hand.call("XLEN", hand.keys("a").starts) == (2 if hand.keys("before") == hand.keys("a") else 1)


async def test_a_signal_whose_reply_was_lost_is_sent_once(server_url: str, namespace: str, hand: Hand) -> None:
    preload(server_url)
    with CuttingProxy(server_url) as proxy:
        async with Client(proxy.url, namespace, retry_for="10s") as client:
            await client.start(gated, 0, id="a")
            await client.signal("a", "approval", 1)  # which looks its definition up
            proxy.cut(Cut(request=b"EVALSHA"))
            await client.signal("a", "approval", 2)
    assert hand.call("XLEN", hand.keys("a").events) == 2


async def test_a_server_that_does_not_answer_is_waited_for_and_named(caplog: pytest.LogCaptureFixture) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    async with Client(url, retry_for="300ms") as client:
        with (
            caplog.at_level(logging.WARNING, "headrace.client"),
            pytest.raises(ServerUnreachable, match="could not be reached for 300 ms, to store flow loose") as raised,
        ):
            await client.start(loose, 1, id="a")
    assert url in str(raised.value)
    assert "Waiting for the server, to" in caplog.text


async def test_a_result_is_waited_for_across_a_lost_subscription(server_url: str, namespace: str, hand: Hand) -> None:
    preload(server_url)
    with CuttingProxy(server_url) as proxy:
        async with Client(proxy.url, namespace, retry_for="10s") as client:
            handle = await client.start(loose, 0, id="a")
            waiting = asyncio.create_task(handle.result("30s"))
            await asyncio.sleep(0.2)
            proxy.cut(Cut(request=b"SUBSCRIBE"))
            other = await client.start(loose, 0, id="b")
            also = asyncio.create_task(other.result("30s"))  # its SUBSCRIBE cuts the subscription for both
            await asyncio.sleep(0.5)
            hand.complete(handle, 1)
            hand.complete(other, 2)
            assert (await waiting, await also) == (1, 2)


async def test_a_password_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    async with Client(f"redis://ann:secret@127.0.0.1:{port}/0", retry_for="100ms") as client:
        with caplog.at_level(logging.DEBUG), pytest.raises(ServerUnreachable) as raised:
            await client.start(loose, 1, id="a")
    assert f"redis://ann:***@127.0.0.1:{port}/0" in str(raised.value)
    assert f"redis://ann:***@127.0.0.1:{port}/0" in caplog.text
    assert "secret" not in str(raised.value) + caplog.text


@pytest.mark.parametrize("url", ["localhost:6379", "http://x", ""])
async def test_a_bad_url_is_told_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_URL", "nonsense")
    with pytest.raises(ConfigurationError, match="A server URL looks like"):
        Client(url)


async def test_url_and_namespace_come_from_the_environment(
    server_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preload(server_url)
    monkeypatch.setenv("HEADRACE_URL", server_url)
    monkeypatch.setenv("HEADRACE_NAMESPACE", namespace)
    async with Client() as client:
        await client.start(loose, 1, id="a")
    async with Client(server_url, namespace) as client:
        assert (await client.get("a")).status == "queued"
