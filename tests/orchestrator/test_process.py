"""The orchestrator's process, run in this one: what it waits through, and how it is stopped meanwhile."""

from __future__ import annotations

import gc
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import pytest

from headrace_broker.backoff import Backoff
from headrace_broker.connection import Command, Connector, Server
from headrace_orchestrator import process
from headrace_orchestrator.options import OrchestratorOptions
from support.proxy import CuttingProxy

from . import flows
from .bench import Bench, Tap

pytestmark = [pytest.mark.real_only, pytest.mark.usefixtures("undone")]


@pytest.fixture
def undone() -> Iterator[None]:
    """Takes back what `run` does to its process: it handles signals, and freezes what lives."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    threshold = gc.get_threshold()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    gc.set_threshold(*threshold)
    gc.unfreeze()


def run(bench: Bench, connector: Connector) -> int:
    options = OrchestratorOptions(
        url=connector.url, namespace=bench.keys.ns, ownership_ms=100, lease_ms=1000, metrics_port=0
    )
    return process.run(options, connector)


def blocks(commands: Sequence[Command]) -> bool:
    """Whether this is the read in which an orchestrator without work waits."""
    return any("BLOCK" in command for command in commands)


def test_it_waits_while_the_server_loads_its_data(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At its start, and when the server was restarted later; then it goes on, until SIGTERM."""
    definition = bench.register(flows.chain("a"))
    restarts: list[str] = []

    class Third(Backoff):
        """The third try finds the data loaded. Nobody waits for that."""

        def next(self) -> float:
            super().next()
            if self.failures == 3:
                proxy.accept()
            return 0.0

    def owned() -> int:
        return caplog.text.count("Partition 0: owned")

    def before(commands: Sequence[Command]) -> None:
        if blocks(commands) and not restarts:
            restarts.append(bench.start("c", definition))
            proxy.refuse()
        elif blocks(commands) and owned() == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(process, "Backoff", Third)
    with CuttingProxy(bench.server.url) as proxy, caplog.at_level(logging.INFO):
        tap = Tap(Server(proxy.url))
        tap.before = before
        proxy.refuse()
        assert run(bench, tap) == 0
    assert caplog.text.count("Waiting for the server: The server still loads its data") == 2, "once for each absence"
    assert bench.status("c") == "running", "what came meanwhile was done"
    assert bench.call("EXISTS", bench.part.owner) == 0, "given up at the end"


@pytest.mark.parametrize("when", ["at its start", "later"])
def test_sigterm_ends_a_wait_for_a_server_that_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def sleep(seconds: float) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError(f"it sleeps on, for {seconds} s")

    def before(commands: Sequence[Command]) -> None:
        if blocks(commands):
            proxy.go_down()

    monkeypatch.setattr(process, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    with CuttingProxy(bench.server.url) as proxy:
        tap = Tap(Server(proxy.url))
        tap.before = before
        if when == "at its start":
            proxy.go_down()
        assert run(bench, tap) == 0
    bench.call("DEL", bench.part.owner)


def test_sigterm_before_the_wait_begins_is_heard_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(Backoff):
        def next(self) -> float:
            signal.raise_signal(signal.SIGTERM)
            return super().next()

    def sleep(seconds: float) -> None:
        raise AssertionError(f"it sleeps for {seconds} s")

    monkeypatch.setattr(process, "Backoff", Stopped)
    monkeypatch.setattr(process, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    assert run(bench, Server("redis://127.0.0.1:1/0")) == 0


def test_it_logs_its_server_without_the_password(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    class Secret(Tap):
        @property
        def url(self) -> str:
            return "redis://ann:secret@server:6379/0"

    def before(commands: Sequence[Command]) -> None:
        if blocks(commands):
            signal.raise_signal(signal.SIGTERM)

    tap = Secret(bench.server)
    tap.before = before
    with caplog.at_level(logging.DEBUG):
        assert run(bench, tap) == 0
    assert "redis://ann:***@server:6379/0" in caplog.text
    assert "secret" not in caplog.text
