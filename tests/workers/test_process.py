"""Real keepers and children: what is seen when they are killed, stopped, or cannot start."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headrace_broker.connection import call
from headrace_broker.conversations import converse
from headrace_broker.messages import StartedMessage, TaskMessage
from headrace_broker.namespace import open_namespace
from headrace_broker.registry import flow_names
from headrace_broker.workers import live_workers
from support.feeding import Feed
from support.waiting import wait_until

pytestmark = [pytest.mark.real_only, pytest.mark.leaves_keys("namespace")]

ONE_SERVER = pytest.mark.servers("redis")
"""What does not depend on the server: each of these tests starts three interpreters."""

TARGET = """
from __future__ import annotations
import asyncio, os, time
from headrace import Flow, task

@task
async def double(x: int) -> int:
    return 2 * x

@task
async def pid() -> int:
    return os.getpid()

@task
def sleeps(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"

@task
async def waits(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "waited"

doubling = Flow("doubling", input=int).then(double)
"""

MAIN = """
import json, logging, sys
from headrace_workers.process import WorkerOptions, run
logging.basicConfig(level=logging.INFO)
try:
    sys.exit(run(WorkerOptions(**json.loads(sys.argv[1]))))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


class Worker:
    """A keeper's process and what it prints."""

    def __init__(self, options: dict[str, Any], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", MAIN, json.dumps(options)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(child) for child in path.read_text().split()]

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ended(self, timeout: float = 10.0) -> int:
        return self.process.wait(timeout)


def _are_gone(pids: list[int]) -> bool:
    return not any(map(is_alive, pids))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def begin(feed: Feed, task: str, seconds: float) -> TaskMessage:
    """Hands out a task and returns when it has begun: one with a time-out says so."""
    message = feed.hand_out(task, seconds, timeout_ms=120_000)
    wait_until(lambda: message.dispatch in {event.dispatch for event in feed.of(StartedMessage)}, why=f"{task} begins")
    return message


Start = Callable[..., Worker]


@pytest.fixture
def start(feed: Feed, server_url: str, namespace: str, tmp_path: Path) -> Iterator[Start]:
    target = tmp_path / "target.py"
    target.write_text(TARGET)
    converse(feed.link, open_namespace(namespace, 4))
    running: list[Worker] = []

    def make(**options: Any) -> Worker:
        defaults = {"targets": [str(target)], "url": server_url, "namespace": namespace, "lease_ms": 2000}
        worker = Worker(defaults | options, tmp_path / f"worker{len(running)}.log")
        running.append(worker)
        return worker

    yield make
    for worker in running:
        children = worker.children() if worker.process.poll() is None else []
        worker.process.kill()
        worker.process.wait()
        wait_until(partial(_are_gone, children), why="children die with their keeper")
        print(worker.said)
    # Killed keepers leave what says that they live until it expires.
    for key in call(feed.link, "KEYS", f"{namespace}:flow*"):
        call(feed.link, "DEL", key)


def test_it_runs_tasks_registers_flows_and_stops_when_told(feed: Feed, start: Start, server_url: str) -> None:
    worker = start()
    assert feed.result(feed.hand_out("double", 21)).outcome == "completed"
    assert converse(feed.link, flow_names(feed.namespace.keys)) == ["doubling"]
    (record,) = wait_until(lambda: converse(feed.link, live_workers(feed.namespace.keys)), why="an announcement")
    assert record.pid == worker.process.pid
    assert record.tasks == ("double", "pid", "sleeps", "waits")
    (child,) = worker.children()
    assert server_url.encode() not in Path(f"/proc/{child}/cmdline").read_bytes()  # it may have a password
    worker.stop()
    assert worker.ended() == 0
    assert converse(feed.link, live_workers(feed.namespace.keys)) == []
    assert "Traceback" not in worker.said


def test_a_killed_childs_tasks_are_reported_within_a_second_and_it_is_replaced(feed: Feed, start: Start) -> None:
    worker = start()
    feed.result(feed.hand_out("double", 1))
    long = begin(feed, "waits", 60)
    (child,) = worker.children()
    killed = time.monotonic()
    os.kill(child, signal.SIGKILL)
    result = feed.result(long, timeout=5)
    assert result.outcome == "lost"
    assert time.monotonic() - killed < 1
    feed.revoke(long)
    assert feed.result(feed.hand_out("double", 2)).outcome == "completed"
    assert worker.children() != [child]


def test_sigterm_lets_running_tasks_finish(feed: Feed, start: Start) -> None:
    worker = start()
    feed.result(feed.hand_out("double", 1))
    handed = [begin(feed, "sleeps", 0.5), begin(feed, "waits", 0.5)]
    worker.stop()
    assert worker.ended() == 0
    assert [feed.result(message).outcome for message in handed] == ["completed", "completed"]
    assert feed.settled()


@ONE_SERVER
def test_the_end_of_the_grace_hands_back_even_what_cannot_be_stopped(feed: Feed, start: Start) -> None:
    worker = start(grace_ms=200)
    feed.result(feed.hand_out("double", 1))
    handed = [begin(feed, "sleeps", 60), begin(feed, "waits", 60)]
    worker.stop()
    assert worker.ended() == 0
    assert [feed.result(message).outcome for message in handed] == ["returned", "returned"]
    assert feed.settled()


@pytest.mark.full_only
@ONE_SERVER
def test_a_second_sigterm_ends_it_at_once(feed: Feed, start: Start) -> None:
    worker = start()
    feed.result(feed.hand_out("double", 1))
    message = begin(feed, "sleeps", 60)
    worker.stop()
    wait_until(lambda: "Stopping" in worker.said, why="the first is heard")
    worker.stop(signal.SIGINT)
    assert worker.ended(5) == 0
    assert feed.result(message).outcome == "returned"


def test_children_die_with_their_keeper(feed: Feed, start: Start) -> None:
    worker = start(processes=2)
    feed.result(feed.hand_out("double", 1))
    children = wait_until(lambda: found if len(found := worker.children()) == 2 else None, why="two children")
    assert children is not None
    begin(feed, "sleeps", 60)
    worker.stop(signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, children)), timeout=2, why="children are gone")


@ONE_SERVER
def test_leases_of_long_tasks_are_renewed(feed: Feed, start: Start) -> None:
    start(lease_ms=600)
    message = feed.hand_out("sleeps", 2)
    ages: list[int] = []

    def ended() -> bool:
        ages.extend(row[2] for keys in feed.namespace.all_partitions for row in feed.leases(keys))
        return message.dispatch in feed.results()

    wait_until(ended, why="the task ends")
    assert feed.result(message).outcome == "completed"
    assert max(ages) < 600


@ONE_SERVER
def test_what_an_owner_revokes_is_stopped_at_once(feed: Feed, start: Start) -> None:
    worker = start(lease_ms=30_000, concurrency=1)
    feed.result(feed.hand_out("double", 1))
    message = begin(feed, "waits", 60)
    feed.revoke(message)
    assert feed.result(feed.hand_out("double", 2), timeout=2).outcome == "completed", "the slot is free"
    assert message.dispatch not in feed.results()
    assert worker.process.poll() is None


@ONE_SERVER
def test_a_target_that_cannot_be_loaded_is_one_clear_message(feed: Feed, start: Start, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no good')\n")
    worker = start(targets=[str(broken)])
    assert worker.ended() != 0
    assert worker.said.count("no good") == 1
    assert "broken.py" in worker.said
    assert "Traceback" not in worker.said


@pytest.mark.full_only
@ONE_SERVER
def test_bad_targets_are_told_at_once_though_the_server_is_away(start: Start, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no good')\n")
    worker = start(targets=[str(broken)], url="redis://127.0.0.1:1/0")
    assert worker.ended(20) != 0
    assert worker.said.count("no good") == 1
    assert "Traceback" not in worker.said
    crash = tmp_path / "crash.py"
    crash.write_text("import os; os._exit(3)\n")
    worker = start(targets=[str(crash)], url="redis://127.0.0.1:1/0")
    assert worker.ended(20) != 0
    assert "ended with exit code 3 while it loaded the targets" in worker.said


@pytest.mark.full_only
@ONE_SERVER
def test_queues_that_no_task_names_are_refused(feed: Feed, start: Start) -> None:
    worker = start(queues=["payments"])
    assert worker.ended() != 0
    assert "payments" in worker.said


@ONE_SERVER
def test_it_waits_for_a_server_that_is_away_and_says_so(start: Start) -> None:
    worker = start(url="redis://127.0.0.1:1/0")
    wait_until(lambda: "Waiting for the server" in worker.said, why="it says for what it waits")
    assert "127.0.0.1:1" in worker.said
    wait_until(worker.children, why="the targets are tried")
    wait_until(lambda: not worker.children(), 20, why="the targets are tried")
    assert worker.process.poll() is None
    worker.stop()
    assert worker.ended() == 0


class _Busy(socketserver.StreamRequestHandler):
    """A server that refuses whatever it is asked."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            if line.startswith(b"*"):
                self.wfile.write(b"-BUSY Redis is busy running a script.\r\n")


@pytest.mark.full_only
@ONE_SERVER
def test_it_waits_for_a_server_that_refuses_and_says_so(start: Start) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Busy) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        worker = start(url=f"redis://127.0.0.1:{server.server_address[1]}/0")
        wait_until(lambda: "Waiting for the server" in worker.said, why="it says for what it waits")
        assert "BUSY Redis is busy" in worker.said
        assert worker.process.poll() is None
        worker.stop()
        assert worker.ended() == 0
        server.shutdown()
