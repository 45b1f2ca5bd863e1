"""What a caller gets wrong is told at the call, before a server is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace.client import Client
from headrace_broker.connection import Server, call
from headrace_broker.errors import (
    ClientClosed,
    ConfigurationError,
    EvictionPolicyRefused,
    InvalidInstanceId,
    InvalidRequest,
)
from support.flows import gated, loose

FIVE: Any = 5
X: Any = "x"


@pytest.fixture
def nowhere() -> Client:
    """A client that would wait for five minutes if it asked."""
    return Client("redis://127.0.0.1:1/0", "any")


async def test_arguments_of_a_wrong_type_are_refused_before_a_server_is_asked(nowhere: Client) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(InvalidRequest, match="A flow is a Flow or text; got int 5"):
            await nowhere.start(FIVE)
        with pytest.raises(InvalidRequest, match="A conflict policy is one of fail, use_existing; got 'x'"):
            await nowhere.start(loose, 1, id="a", conflict=X)
        with pytest.raises(InvalidRequest, match="An actor is text; got int 5"):
            await nowhere.start(loose, 1, actor=FIVE)
        for name in ("", "a\nb", "x" * 257):
            with pytest.raises(InvalidRequest, match="A signal's name has"):
                await nowhere.signal("a", name)
        with pytest.raises(InvalidRequest, match="A signal is a Signal or text; got int 5"):
            await nowhere.signal("a", FIVE)
        with pytest.raises(InvalidRequest, match="A reason is text; got int 5"):
            await nowhere.cancel("a", reason=FIVE)
        with pytest.raises(InvalidRequest, match="A handle's flow is a Flow or a NoneType; got str 'x'"):
            nowhere.handle("a", X)
        with pytest.raises(InvalidRequest, match="A flow's name is text; got int 5"):
            await nowhere.current_flow(FIVE)
        wrong: list[dict[str, Any]] = [{"flow": 5}, {"since": "2026"}, {"status": "x"}, {"status": []}]
        for filters in wrong:
            with pytest.raises(ConfigurationError):
                await nowhere.list(**filters)
        asked = (nowhere.get(FIVE), nowhere.history(FIVE), nowhere.cancel(FIVE), nowhere.signal(FIVE, "x"))
        for asking in asked:
            with pytest.raises(InvalidInstanceId, match="An instance id is a string; got int"):
                await asking
        with pytest.raises(InvalidInstanceId):
            nowhere.handle(FIVE)


@pytest.mark.parametrize("page", [{"limit": "x"}, {"limit": 0}, {"limit": True}, {"cursor": 5}, {"cursor": "x"}])
async def test_a_bad_page_is_refused(client: Client, page: Any) -> None:
    with pytest.raises(ConfigurationError):
        await client.list(**page)


@pytest.mark.parametrize(("url", "namespace"), [(5, None), (None, 5), (None, "a b")])
def test_a_bad_url_or_namespace_is_refused_when_the_client_is_made(url: Any, namespace: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"; got (5|'a b')"):
        Client(url, namespace)


async def test_a_closed_client_says_so(client: Client) -> None:
    handle = await client.start(gated, 1, id="a")
    waiting = asyncio.create_task(handle.result())
    await client.get("a")
    await client.close()
    asked = (client.get("a"), client.list(), client.start(loose, 1), client.signal("a", "x"), handle.result())
    for asking in asked:
        with pytest.raises(ClientClosed, match="The client was closed"):
            await asking
    waiting.cancel()
    await client.close()
    with pytest.raises(ClientClosed):
        await client.get("a")


@pytest.mark.real_only
async def test_a_server_that_evicts_is_refused(server_url: str, namespace: str) -> None:
    link = Server(server_url).connect()
    call(link, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        async with Client(server_url, namespace) as client:
            with pytest.raises(EvictionPolicyRefused, match="CONFIG SET maxmemory-policy noeviction"):
                await client.start(loose, 1)
    finally:
        call(link, "CONFIG", "SET", "maxmemory-policy", "noeviction")
        link.close()


async def test_a_password_is_not_in_what_is_said() -> None:
    async with Client("redis://:secret@127.0.0.1:1/0", retry_for="10ms") as client:
        with pytest.raises(Exception, match=r"redis://:\*\*\*@127") as raised:
            await client.list()
    assert "secret" not in str(raised.value)
