"""The checks of `doctor`, one by one: from facts to findings, with no server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from headrace.cli import checks
from headrace.cli.checks import Finding, examine
from headrace_broker.facts import Facts, FlowFacts, Inbox, PartitionFacts, QueueFacts
from headrace_broker.quarantine import Quarantined
from headrace_broker.server_facts import ServerFacts
from headrace_broker.snapshots import Snapshot, moment
from headrace_broker.workers import WorkerRecord

NOW = 1_700_000_000_000
EMPTY = Inbox(0, None)
SERVER = ServerFacts("redis", "7.0.15", {}, True, "everysec", (), False, "noeviction", 50, 100)
PARTITION = PartitionFacts(0, 4000, False, EMPTY, EMPTY, EMPTY, 0, ())
WORKER = WorkerRecord("k", "host", 1, 1, 8, 0, ("default",), ("a",))
WELL = Facts(
    "headrace",
    NOW,
    SERVER,
    (PARTITION, replace(PARTITION, number=1)),
    queues=(QueueFacts("default", 3, frozenset(("a",))),),
    workers=(WORKER,),
    flows=(FlowFacts("f", frozenset((("default", "a"),))),),
)
LATE = Inbox(7, NOW - 60_000)


def with_server(**fields: Any) -> Facts:
    return replace(WELL, server=replace(SERVER, **fields))


def with_partition(**fields: Any) -> Facts:
    assert WELL.partitions is not None
    return replace(WELL, partitions=(WELL.partitions[0], replace(WELL.partitions[1], **fields)))


def with_queue(stream: str, length: int, *tasks: str) -> Facts:
    return replace(WELL, queues=(*WELL.queues, QueueFacts(stream, length, frozenset(tasks))))


def with_flow(*calls: tuple[str, str], problem: str | None = None) -> Facts:
    return replace(WELL, flows=(*WELL.flows, FlowFacts("g", frozenset(calls), problem)))


def blocked() -> Facts:
    one = Snapshot("order-1", "inc", "f", "d", "blocked", moment(NOW), None, 1, "", reason="no definition.")
    return replace(with_partition(blocked=2), blocked=(one,))


def quarantined() -> Facts:
    entry = Quarantined(1, "5-0", moment(NOW), "events", "4-0", "", "Not MessagePack.", False, 0, {})
    return replace(WELL, quarantined=12_345, quarantine=(entry,))


def test_what_is_well_has_no_findings() -> None:
    assert examine(WELL, 0) == []


@pytest.mark.parametrize(
    ("facts", "code", "severity", "about", "words"),
    [
        (with_server(refused={"INFO": "NOPERM"}, eviction=None), "server_refuses", "warning", (), "refuses INFO"),
        (with_server(kind=None, version=None), "server_unknown", "error", (), "neither Redis nor Valkey"),
        (with_server(version="6.2.1"), "server_too_old", "error", (), "Redis 6.2.1"),
        (with_server(loading=True), "server_loading", "error", (), "loading"),
        (with_server(append_only=False), "persistence_off", "error", (), "CONFIG SET appendonly yes"),
        (with_server(fsync="no"), "fsync_off", "warning", (), "everysec"),
        (
            with_server(failed_writes=("aof_last_write_status",)),
            "persistence_fails",
            "error",
            ("aof_last_write_status",),
            "disk",
        ),
        (with_server(eviction="allkeys-lru"), "eviction_policy", "error", (), "maxmemory-policy noeviction"),
        (with_server(used_memory=86), "memory_full", "error", (), "86%"),
        (with_server(used_memory=71), "memory_high", "warning", (), "71%"),
        (replace(WELL, partitions=None), "namespace_missing", "warning", ("headrace",), "--namespace"),
        (replace(WELL, problems=("headrace:queues: WRONGTYPE",)), "key_damaged", "error", None, "headrace:queues"),
        (with_partition(problems=("{headrace:1}:meta: x",)), "key_damaged", "error", None, "{headrace:1}:meta"),
        (with_partition(owner_ttl_ms=None), "partition_without_owner", "error", ("1",), "headrace orchestrator"),
        (with_partition(owner_ttl_ms=-1), "owner_without_end", "error", ("1",), "DEL '{headrace:1}:owner'"),
        (with_partition(repairing=True), "partition_in_repair", "warning", ("1",), "damaged"),
        (with_partition(events=LATE), "events_lag", "warning", ("1",), "7, the oldest for 1 min"),
        (with_partition(starts=LATE), "starts_lag", "warning", ("1",), "headrace worker"),
        (with_partition(outbox=LATE), "outbox_lag", "warning", ("1",), "between partitions"),
        (replace(WELL, signals=LATE), "signals_lag", "warning", ("signals",), "owner"),
        (with_queue("slow", 4, "b"), "queue_without_worker", "error", ("slow",), "slow (4)"),
        (with_queue("x:process", 4), "queue_without_worker", "error", ("x:process",), "--queues x"),
        (with_flow(("slow", "b")), "queue_unserved", "warning", ("slow",), "Nothing waits there yet"),
        (with_queue("default", 1, "b"), "task_without_worker", "error", ("b",), "b (queue default)"),
        (with_flow(("default", "b")), "task_unserved", "warning", ("b",), "b (queue default)"),
        (with_flow(problem="is gone"), "flow_unreadable", "error", ("g",), "g: is gone"),
        (replace(WELL, unreadable_workers=("k2: x",)), "worker_unreadable", "warning", ("k2: x",), "newer release"),
        (blocked(), "instances_blocked", "error", ("order-1",), "headrace unblock order-1"),
        (quarantined(), "quarantine", "warning", ("1:5-0",), "12,345 entries"),
    ],
)
def test_each_finding(facts: Facts, code: str, severity: str, about: tuple[str, ...] | None, words: str) -> None:
    (found,) = examine(facts, 0)
    assert (found.code, found.severity) == (code, severity)
    assert about is None or found.about == about
    assert words in f"{found.means} {found.mend}"
    assert found.mend


@pytest.mark.parametrize("offset", [-1500, 1500])
def test_a_clock_that_is_off(offset: int) -> None:
    (found,) = examine(WELL, offset)
    assert (found.code, found.severity) == ("clock_offset", "warning")
    assert ("ahead of" if offset > 0 else "behind") in found.means


@pytest.mark.parametrize(
    "facts",
    [
        with_server(kind="valkey", version="9.1.0"),
        with_server(fsync="always"),
        with_server(fsync=None, refused={"CONFIG": "unknown command"}),
        with_server(append_only=None, fsync=None, eviction=None, used_memory=None, max_memory=None),
        with_server(max_memory=0, used_memory=10**12),
        with_server(used_memory=69),
        with_partition(events=Inbox(100_000, NOW - 5000)),
        with_queue("slow", 0),
    ],
)
def test_what_is_no_finding(facts: Facts) -> None:
    assert examine(facts, 999) == []


def test_errors_come_first_and_long_lists_are_cut() -> None:
    streams = tuple(QueueFacts(f"q{number}", 1, frozenset()) for number in range(9))
    found = examine(replace(quarantined(), queues=streams, workers=(), flows=()), 5000)
    assert [one.code for one in found] == ["queue_without_worker", "quarantine", "clock_offset"]
    assert "and 4 more" in found[0].means
    assert len(found[0].about) == 9


def test_every_check_is_in_the_table() -> None:
    names = {name for name, value in vars(checks).items() if getattr(value, "__module__", "") == checks.__name__}
    public = {name for name in names if name.islower() and not name.startswith("_")}
    assert public - {"examine", "clock"} == {check.__name__ for check in checks.CHECKS}
    assert Finding.__name__ in names
