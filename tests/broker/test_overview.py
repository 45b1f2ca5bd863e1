"""A namespace at a glance: counts over all partitions, queues with and without workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace_broker import overview
from headrace_broker.connection import Link, Server, call, exchange
from headrace_broker.conversations import converse
from headrace_broker.definitions import Definition
from headrace_broker.instances import STATUSES, index_member
from headrace_broker.namespace import Namespace, open_namespace
from headrace_broker.overview import QueueLoad, read_overview
from headrace_broker.registry import store_flow
from headrace_broker.workers import WorkerRecord, announce

NOTHING: dict[str, int] = dict.fromkeys(STATUSES, 0)


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    link = Server(server_url).connect()
    yield link
    link.close()


@pytest.fixture
def opened(link: Link, namespace: str) -> Namespace:
    return converse(link, open_namespace(namespace, 3))


def put(link: Link, opened: Namespace, instance: str, status: str, flow: str) -> None:
    keys = opened.of(instance)
    member = index_member(f"inc-{instance}", instance)
    exchange(link, [("ZADD", key, 1_700_000_000_000, member) for key in (keys.by_status(status), keys.by_flow(flow))])


def register(link: Link, opened: Namespace, *flows: str) -> None:
    for flow in flows:
        converse(link, store_flow(opened.keys, Definition(flow, ())))


def work(link: Link, opened: Namespace, keeper: str, *streams: str) -> WorkerRecord:
    seconds, micros = call(link, "TIME")
    now = int(seconds) * 1000 + int(micros) // 1000
    record = WorkerRecord(keeper, "host", 7, 1, 32, now, streams, ("task",))
    exchange(link, announce(opened.keys, record, now, 60_000))
    return record


def test_an_empty_namespace_has_nothing(link: Link, opened: Namespace) -> None:
    found = converse(link, read_overview(opened))
    assert found == overview.Overview(NOTHING, {}, 0, (), ())


def test_instances_are_counted_over_all_partitions(link: Link, opened: Namespace) -> None:
    register(link, opened, "orders", "refunds", "unused")
    ids = [f"order-{n}" for n in range(12)]
    assert len({opened.of(one).number for one in ids}) == 3
    for number, one in enumerate(ids):
        put(link, opened, one, "running" if number < 5 else "failed", "orders" if number < 9 else "refunds")
    found = converse(link, read_overview(opened))
    assert found.statuses == {**NOTHING, "running": 5, "failed": 7}
    assert found.flows == {"orders": 9, "refunds": 3, "unused": 0}


def test_queues_have_a_backlog_and_workers(link: Link, opened: Namespace) -> None:
    call(link, "SADD", opened.keys.queues, "default", "payments", "slow:process")
    for partition in opened.all_partitions:
        call(link, "XADD", partition.tasks("payments"), "*", "m", "x")
    workers = [work(link, opened, "a", "default", "payments"), work(link, opened, "b", "payments")]
    found = converse(link, read_overview(opened))
    assert found.queues == (QueueLoad("default", 0, 1), QueueLoad("payments", 3, 2), QueueLoad("slow:process", 0, 0))
    assert list(found.workers) == workers


def test_many_names_are_cut_and_counted(link: Link, opened: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "MAX_NAMES", 2)
    monkeypatch.setattr(overview, "_BATCH", 5)  # sums go on over round trips
    register(link, opened, "a", "b", "c")
    for flow in "ab":
        put(link, opened, f"{flow}-1", "queued", flow)
    found = converse(link, read_overview(opened))
    assert (found.flows, found.more_flows, found.statuses["queued"]) == ({"a": 1, "b": 1}, 1, 2)
