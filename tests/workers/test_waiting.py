"""Workers wait for a server that is away or loads its data: at the start of a keeper and of a child, and later."""

from __future__ import annotations

import asyncio
import logging
import signal
import time

import pytest

from headrace import Flow, task
from headrace.targets import Registry
from headrace_broker.backoff import Backoff
from headrace_broker.connection import Server
from headrace_broker.conversations import converse
from headrace_broker.registry import flow_names
from headrace_workers import child_main, process
from headrace_workers.options import ChildOptions
from headrace_workers.signals import Signals
from support.feeding import Feed
from support.proxy import CuttingProxy
from support.waiting import wait_until_async

from .conftest import Children

pytestmark = pytest.mark.real_only


@task
async def double(x: int) -> int:
    return 2 * x


class NoSpawner:
    """There are no processes to spare: targets are not tried."""

    def __init__(self, *settings: object) -> None: ...

    def spawn(self, consumer: str) -> None:
        raise OSError


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "ProcessSpawner", NoSpawner)


@pytest.mark.usefixtures("alone")
def test_a_keeper_waits_while_the_server_loads_its_data(
    server_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Third(Backoff):
        def next(self) -> float:
            super().next()
            if self.failures == 3:
                proxy.accept()
            return 0.0

    monkeypatch.setattr(process, "Backoff", Third)
    with CuttingProxy(server_url) as proxy, Signals() as signals:
        proxy.refuse()
        options = process.WorkerOptions(["app.py"], proxy.url, namespace)
        opened = process._wait_for_server(  # pyright: ignore[reportPrivateUsage]
            Server(proxy.url), options, signals, needs_rq=False
        )
    assert opened is not None
    assert opened.keys.ns == namespace
    assert caplog.text.count("Waiting for the server: The server still loads its data") == 1


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_keepers_wait_for_a_server_that_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    """And what is said of it names the server, without its password."""

    class Long(Backoff):
        def next(self) -> float:
            signal.raise_signal(number)
            return 20.0

    monkeypatch.setattr(process, "Backoff", Long)
    began = time.monotonic()
    assert process.run(process.WorkerOptions(["app.py"], "redis://ann:secret@127.0.0.1:1/0")) == 0
    assert time.monotonic() - began < 5
    assert "No server answers at redis://ann:***@127.0.0.1:1/0" in caplog.text
    assert "secret" not in caplog.text


async def test_a_child_stores_its_flows_when_the_server_has_loaded_its_data(feed: Feed, server_url: str) -> None:
    registry = Registry()
    registry.add(Flow("doubling", input=int).then(double))
    keys = feed.namespace.keys
    with CuttingProxy(server_url) as proxy:
        proxy.refuse()
        options = ChildOptions(proxy.url, keys.ns, 4, ["app.py"], None, "keeper.1", 1, 1000, 0, logging.INFO)
        storing = asyncio.create_task(
            child_main._store_flows(options, registry, feed.namespace)  # pyright: ignore[reportPrivateUsage]
        )
        await wait_until_async(lambda: proxy.refusals >= 2 or storing.done(), why="a second try")
        assert converse(feed.link, flow_names(keys)) == []
        proxy.accept()
        await storing
    assert converse(feed.link, flow_names(keys)) == ["doubling"]


async def test_a_child_works_when_the_server_has_loaded_its_data(
    feed: Feed, children: Children, server_url: str
) -> None:
    """At its start, and after the server was restarted beneath it."""
    with CuttingProxy(server_url) as proxy:
        children.connector = Server(proxy.url)
        proxy.refuse()
        child = children.start(double)
        await wait_until_async(lambda: proxy.refusals >= 2, why="a second try")
        proxy.accept()
        assert (await feed.result_async(feed.hand_out("double", 1))).outcome == "completed"
        proxy.refuse()
        refused = proxy.refusals
        await wait_until_async(lambda: proxy.refusals >= refused + 2, why="a second try")
        proxy.accept()
        assert (await feed.result_async(feed.hand_out("double", 2))).outcome == "completed"
        child.drain(0)
        await children.ended(child)
