"""A server at its maxmemory: nothing is lost, the sweeper frees what is due, and processing goes on by itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace_broker.embedded import EmbeddedServer
from headrace_broker.errors import ServerFull
from headrace_broker.listing import Filter, list_instances
from headrace_broker.namespace import open_namespace
from headrace_broker.retention import Retention
from headrace_orchestrator.sweeping.sweeper import LOOK_SECONDS
from support.leaks import check_namespace
from support.servers import FULL, redis_binary
from support.waiting import wait_until

from . import flows
from .bench import Bench, check_once, counted, settle, step_until, steps

DAY = 24 * 3_600_000
FILLING = "x" * 10_000
FLOW = flows.chain("a", flow="f")


@pytest.fixture(params=["redis", "valkey"] if FULL else ["redis"])
def lonely_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """On a server of its own, whose limit the test sets."""
    with EmbeddedServer.open(tmp_path, binary=redis_binary() if request.param == "redis" else None) as server:
        made = Bench(server.url, f"t{uuid.uuid4().hex[:10]}")
        try:
            yield made
        finally:
            made.call("CONFIG", "SET", "maxmemory", 0)
            made.close()
        assert check_namespace(server.url, made.keys.ns) == []


def fill(bench: Bench, below: int) -> None:
    """Sets the limit so many bytes below what is used."""
    lines = bench.call("INFO", "memory").decode().splitlines()
    (used,) = (int(line.partition(":")[2]) for line in lines if line.startswith("used_memory:"))
    bench.call("CONFIG", "SET", "maxmemory", used - below)
    assert not can_write(bench)


def can_write(bench: Bench) -> bool:
    try:
        bench.call("SADD", bench.keys.queues, "default")
    except ServerFull:
        return False
    return True


def test_the_sweeper_frees_and_work_goes_on(lonely_bench: Bench) -> None:
    bench = lonely_bench
    bench.register(FLOW)
    orchestrator, hand = bench.orchestrator(), bench.hand()
    for n in range(300):
        bench.start(f"old{n}", FLOW, FILLING)
    settle(orchestrator, hand)
    bench.start("new", FLOW)
    fill(bench, below=500_000)
    steps(orchestrator)
    assert counted(orchestrator, "out_of_memory_total") >= 1
    assert orchestrator.owned == [0], "without memory it could not be taken again"
    assert bench.status("new") == "queued"
    page = bench.hold(list_instances(bench.namespace, Filter(status="completed"), limit=1000))
    assert len(page.items) == 300, "reads go on"
    for id in ("refused", "old1"):  # a fresh id, and one that was used: its header is renamed, which needs no memory
        with pytest.raises(ServerFull):
            bench.start(id, FLOW)
    commits = bench.meta().commit

    bench.pass_time(DAY)
    step_until(orchestrator, lambda: bench.status("new") == "running", "memory that is free again")
    assert bench.meta().commit > commits
    settle(orchestrator, hand)
    check_once(bench.history("new"), "a")
    assert counted(orchestrator, "instances_swept_total", reason="age") == 300
    assert counted(orchestrator, "fenced_commits_total") == 0


def test_who_comes_now_takes_the_partition_and_frees(lonely_bench: Bench) -> None:
    bench = lonely_bench
    bench.register(FLOW)
    orchestrator, hand = bench.orchestrator(), bench.hand()
    for n in range(100):
        bench.start(f"old{n}", FLOW, FILLING)
    settle(orchestrator, hand)
    bench.start("new", FLOW)
    fill(bench, below=200_000)
    orchestrator.close()
    assert bench.hold(open_namespace(bench.keys.ns)).partitions == 1
    again = bench.orchestrator()
    steps(again)
    assert again.owned == [0]
    bench.pass_time(DAY)
    step_until(again, lambda: bench.status("new") == "running", "memory that is free again")
    assert counted(again, "fenced_commits_total") == 0


def test_a_delete_is_taken_and_carried_out(lonely_bench: Bench) -> None:
    bench = lonely_bench
    bench.register(FLOW, Retention("forever", "forever", "forever"))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    ids = [f"old{n}" for n in range(100)]
    for id in ids:
        bench.start(id, FLOW, FILLING)
    settle(orchestrator, hand)
    fill(bench, below=200_000)
    for id in ids:
        bench.delete(id)
    bench.clock.advance(LOOK_SECONDS)
    step_until(orchestrator, lambda: not bench.scan(bench.part.history("*")), "the deletion of what was asked for")
    assert not bench.scan(bench.part.header("*"))
    wait_until(lambda: can_write(bench), why="memory that a thread of the server gives back")
    bench.start("new", FLOW)
    step_until(orchestrator, lambda: bench.status("new") == "running", "commits again")
    settle(orchestrator, hand)
    check_once(bench.history("new"), "a")
