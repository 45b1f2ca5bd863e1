"""`headrace dev`: one command, and flows run; what dies comes back; Ctrl-C leaves nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import Flow, task
from headrace.cli.founding import found_namespace
from headrace.cli.readiness import Readiness, until_ready
from headrace.targets import Registry
from headrace_broker.connection import Server, call, exchange
from headrace_broker.conversations import converse
from headrace_broker.errors import PartitionCountMismatch
from headrace_broker.locate import locate, runs_in
from headrace_broker.namespace import open_namespace
from headrace_broker.registry import store_flow
from headrace_broker.workers import WorkerRecord, announce
from support.waiting import wait_until

from .dev_process import Dev

FLOWS = """
from headrace import Flow, task

@task
def double(n: int) -> int:
    return n * 2

doubling = Flow("doubling", input=int).then(double)
slow = Flow("slow", input=int).delay("2s").then(double)
"""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    (tmp_path / "flows.py").write_text(FLOWS)
    dev = Dev(tmp_path, "flows.py")
    yield dev
    dev.stop()


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_flows_run_survive_deaths_and_nothing_is_left(dev: Dev) -> None:
    wait_until(lambda: "Ctrl-C stops all" in dev.said(), 30, "dev to be up")
    assert "embedded://.headrace (started" in dev.said()
    # The worker has registered its flows by now, and no two threads have written at once.
    names = ("server", "orchestrator", "worker", "namespace", "flows", "try", "Ctrl-C")
    assert [line.split()[0] for line in dev.said().splitlines()] == list(names)
    first = dev.run("start", "doubling", "--input", "21", "--wait", "--timeout", "30s", "--id", "one")
    assert (first.returncode, first.stdout) == (0, "42\n"), first.stderr
    assert dev.run("start", "slow", "--input", "5", "--id", "two").returncode == 0
    (server,) = re.findall(r"^server .*pid (\d+);", dev.said(), re.MULTILINE)
    for pid in (dev.pids("worker")[0], dev.pids("orchestrator")[0], int(server)):
        os.kill(pid, signal.SIGKILL)
    listed = dev.run("ls", "--json")  # which waits for the server, and asks no other
    assert {item["id"] for item in json.loads(listed.stdout)["items"]} == {"one", "two"}, listed.stderr
    for name, runs in (("worker", 2), ("orchestrator", 2), ("server", 1)):
        wait_until(lambda name=name, runs=runs: len(dev.pids(name)) == runs, 20, f"{name} to be started again")  # type: ignore[misc]
        assert f"{name:<13} died: killed by SIGKILL" in dev.said()
    gone_on = dev.run("watch", "two")
    assert (gone_on.returncode, gone_on.stdout.splitlines()[-1]) == (0, "10"), gone_on.stderr
    shown = dev.run("show", "one")
    assert "completed" in shown.stdout
    dev.process.send_signal(signal.SIGINT)
    assert dev.process.wait(30) == 0
    assert dev.said().endswith("stopped\n")
    assert all(gone(pid) for name in ("worker", "orchestrator") for pid in dev.pids(name))
    assert not runs_in(dev.directory / ".headrace")


@pytest.mark.full_only
def test_a_second_ctrl_c_stops_at_once(dev: Dev) -> None:
    wait_until(lambda: "Ctrl-C stops all" in dev.said(), 30, "dev to be up")
    for name in ("worker", "orchestrator"):
        os.kill(dev.pids(name)[0], signal.SIGSTOP)  # which cannot take its SIGTERM
    dev.process.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping" in dev.said())
    dev.process.send_signal(signal.SIGINT)
    assert dev.process.wait(10) == 0
    assert all(gone(pid) for name in ("worker", "orchestrator") for pid in dev.pids(name))


@pytest.mark.servers("redis")
@pytest.mark.leaves_keys("namespace")
def test_the_namespace_is_there_before_the_processes(server_url: str, namespace: str) -> None:
    said: list[str] = []
    assert found_namespace(server_url, namespace, 7, threading.Event(), said.append)
    link = Server(server_url).connect()
    assert converse(link, open_namespace(namespace)).partitions == 7
    link.close()
    with pytest.raises(PartitionCountMismatch):
        found_namespace(server_url, namespace, 8, threading.Event(), said.append)
    assert said == []


def test_a_namespace_waits_for_its_server_until_told_to_stop() -> None:
    stopped = threading.Event()
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        stopped.set()

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        assert not found_namespace(f"redis://:secret@127.0.0.1:{one.getsockname()[1]}", "any", None, stopped, tell)
    assert said[0].startswith("waiting for the server: No server answers at redis://:***@127.0.0.1")


def test_partitions_that_do_not_fit_are_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)
    with locate(f"embedded://{tmp_path}/.headrace") as located:
        link = Server(located.url).connect()
        converse(link, open_namespace("headrace", 3))
        link.close()
        dev = Dev(tmp_path, "flows.py", HEADRACE_PARTITIONS="8")
        assert dev.process.wait(30) == 2
    assert "error: Namespace 'headrace' was created with 3 partitions" in dev.said()
    assert "orchestrator" not in dev.said()


def test_it_says_once_what_is_missing() -> None:
    said: list[str] = []
    stopped = threading.Event()
    looks = 0

    def missing() -> list[str]:
        nonlocal looks
        looks += 1
        return ["the worker", "flow orders"] if looks < 3 else []

    assert until_ready(missing, stopped, said.append, deadline=0)
    assert said == ["not ready after 0 s, still waiting for: the worker, flow orders"]
    looks = 0
    stopped.set()
    assert not until_ready(missing, stopped, said.append)


@pytest.mark.servers("redis")
@pytest.mark.leaves_keys("namespace", "definition", "flow", "flows")
def test_what_is_missing_is_read_from_the_server(server_url: str, namespace: str) -> None:
    @task
    def first() -> None: ...

    @task
    def second() -> None: ...

    flow = Flow("waited-for").then(first).then(second)
    registry = Registry()
    registry.add(flow)
    readiness = Readiness(server_url, namespace, registry, lambda: 7)
    link = Server(server_url).connect()
    assert readiness.missing() == ["the orchestrator", "the worker", "flow waited-for"]
    keys = converse(link, open_namespace(namespace, 1)).keys
    converse(link, store_flow(keys, flow.definition))
    call(link, "SET", keys.partition(0).owner, "somebody", "PX", 60_000)
    now = int(call(link, "TIME")[0]) * 1000
    for tasks, expected in (((), ["the worker's tasks first, second"]), (("second",), ["the worker's task first"])):
        record = WorkerRecord("keeper", socket.gethostname(), 7, 1, 1, now, (), tasks)
        exchange(link, announce(keys, record, now, 60_000))
        assert readiness.missing() == expected
    exchange(link, announce(keys, record._replace(tasks=("first", "second")), now, 60_000))
    assert readiness.missing() == []
    exchange(link, announce(keys, record._replace(pid=8), now, 60_000))
    assert readiness.missing() == ["the worker"], "one of an earlier run"
    readiness.close()
    link.close()
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        (lost,) = Readiness(f"redis://127.0.0.1:{one.getsockname()[1]}", namespace, registry, lambda: 7).missing()
    assert lost.startswith("the server (")


def test_a_bad_target_is_told_before_anything_starts(tmp_path: Path) -> None:
    dev = Dev(tmp_path, "missing.py")
    assert dev.process.wait(30) == 2
    assert dev.said().startswith("error: Target 'missing.py': there is no file")
    assert not (tmp_path / ".headrace").exists()
