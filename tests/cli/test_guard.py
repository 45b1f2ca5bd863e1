"""The guard of a `dev`'s server: what dies is started again, and the other commands of the directory wait for it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cli import options
from headrace.cli.guard import guarded
from headrace.cli.processes import located_in_time
from headrace.cli.supervisor import Event
from headrace_broker.connection import Server, call
from headrace_broker.embedded import EmbeddedServer
from headrace_broker.locate import guarding, runs_in
from support.waiting import wait_until

from .conftest import Headrace


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.open(tmp_path / ".headrace") as server:
        yield server


def kill(server: EmbeddedServer) -> None:
    os.kill(server.pid, signal.SIGKILL)
    wait_until(server.has_ended, why="the server to be gone")


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def test_a_killed_server_is_started_again_with_its_data(server: EmbeddedServer) -> None:
    events: list[Event] = []
    link = Server(server.url).connect()
    call(link, "SET", "k", "v")
    link.close()
    with guarded(server, events.append):
        for times in (1, 2):
            os.kill(server.pid, signal.SIGKILL)
            wait_until(lambda times=times: kinds(events).count("started") == times, why="a restart")  # type: ignore[misc]
            link = Server(server.url).connect()
            assert call(link, "GET", "k") == b"v"
            link.close()
    assert kinds(events) == ["died", "restarting", "started"] * 2
    assert events[0].cause == "killed by SIGKILL"
    assert events[4].delay > events[1].delay / 2, "the second restart waits longer, at random"
    assert runs_in(server.directory), "it belongs to who opened it"


def test_a_server_that_does_not_start_is_tried_again_and_told_of(server: EmbeddedServer) -> None:
    events: list[Event] = []
    kill(server)
    manifest = next((server.directory / "appendonlydir").glob("*.manifest"))
    sound = manifest.read_text()
    manifest.write_text("this is no manifest\n")
    with guarded(server, events.append):
        wait_until(lambda: kinds(events).count("died") >= 2, why="a failed start")
        manifest.write_text(sound)
        wait_until(lambda: "started" in kinds(events), why="a restart")
    assert any("did not start" in event.cause for event in events)


def test_one_that_another_process_started_is_started_again_too(server: EmbeddedServer) -> None:
    events: list[Event] = []
    joined = EmbeddedServer.open(server.directory)
    with guarded(joined, events.append):
        kill(server)
        wait_until(lambda: "started" in kinds(events), why="a restart")
    assert "another process had started it" in events[0].cause
    joined.close()


def test_without_an_embedded_server_nothing_is_guarded() -> None:
    threads = threading.active_count()
    with guarded(None, lambda event: None):
        assert threading.active_count() == threads


def test_a_command_waits_for_the_server_of_a_live_dev(
    headrace: Headrace, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.cli.connecting.RETRY_FOR", "200ms")
    with guarding(server.directory):
        kill(server)
        assert options.server_url(None) == "embedded://.headrace", "and not the server on this machine's usual port"
        outcome = headrace("ls")
        assert (outcome.code, outcome.out) == (4, "")
        assert "Waiting for the server, to list instances: The server in" in outcome.err
        assert "is down; the process that guards it, such as `headrace dev`, starts it again" in outcome.err
        assert server.has_ended(), "it did not start one of its own"
        monkeypatch.setattr("headrace.cli.connecting.RETRY_FOR", "20s")
        reviving = threading.Timer(0.2, server.revive)
        reviving.start()
        outcome = headrace("ls")
        reviving.join()
        assert (outcome.code, outcome.err.splitlines()[-1]) == (0, "no instances")


def test_a_worker_waits_for_the_server_of_a_live_dev(server: EmbeddedServer, caplog: pytest.LogCaptureFixture) -> None:
    with guarding(server.directory):
        kill(server)
        reviving = threading.Timer(0.2, server.revive)
        reviving.start()
        with located_in_time(f"embedded://{server.directory}") as located:
            assert located.url == server.url
            assert located.embedded is not None
            assert not located.embedded.started
        reviving.join()
    assert "Waiting for the server: The server in" in caplog.text
