"""Reading what `doctor` looks at: all of it from one namespace, bounded, and whatever the keys hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace_broker import facts, messages, quarantine, registry, workers
from headrace_broker.connection import Link, Server, call, exchange
from headrace_broker.conversations import converse
from headrace_broker.definitions import Definition, Node, TaskCall
from headrace_broker.errors import ConfigurationError
from headrace_broker.facts import FlowFacts, Inbox, QueueFacts, read_facts
from headrace_broker.instances import index_member
from headrace_broker.messages import TaskMessage
from headrace_broker.namespace import Namespace, open_namespace
from headrace_broker.workers import WorkerRecord

TASK = TaskMessage("c", "i", 1, "f", "n", "charge", "0-1a-5-0", 1, 1, 1, 1, 0, False, 0, 0, b"m\xc0")
DEFINITION = Definition("f", (Node("task", "n", None, {"call": TaskCall("charge", "slow").to_wire()}),))


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    link = Server(server_url).connect()
    yield link
    link.close()


@pytest.fixture
def opened(link: Link, namespace: str) -> Namespace:
    return converse(link, open_namespace(namespace, 2))


def test_a_namespace_that_is_not_there(link: Link, namespace: str) -> None:
    found = converse(link, read_facts(namespace))
    assert found.partitions is None
    assert call(link, "EXISTS", f"{namespace}:namespace") == 0, "it was not made"
    with pytest.raises(ConfigurationError):
        converse(link, read_facts("a b"))


@pytest.mark.real_only
def test_the_server(link: Link, opened: Namespace) -> None:
    server = converse(link, read_facts(opened.keys.ns)).server
    assert server.kind in ("redis", "valkey")
    assert (server.append_only, server.fsync, server.eviction) == (True, "everysec", "noeviction")
    assert server.refused == {}
    assert server.used_memory is not None
    assert server.used_memory > 100_000


@pytest.mark.leaves_keys("header")
def test_what_waits_and_who_works(link: Link, opened: Namespace) -> None:
    first, second = opened.all_partitions
    now = int(call(link, "TIME")[0]) * 1000
    call(link, "SET", first.owner, "x", "PX", 5000)
    call(link, "XADD", second.events, "1000-0", "m", "x")
    call(link, "XADD", second.events, "2000-0", "m", "x")
    call(link, "XADD", opened.keys.signals, "3000-0", "m", "x")
    call(link, "SADD", opened.keys.queues, "slow", "idle")
    call(link, "XADD", first.tasks("slow"), "5-0", "m", messages.pack(TASK))
    call(link, "XADD", second.tasks("slow"), "5-0", "m", "rubbish")
    record = WorkerRecord("k", "host", 1, 1, 8, 0, ("slow",), ("charge",))
    exchange(link, workers.announce(opened.keys, record, now, 10_000))
    converse(link, registry.store_flow(opened.keys, DEFINITION))
    home = opened.of("order-1")
    call(
        link, "HSET", home.header("order-1"), *("inc", "i", "flow", "f", "def", "d", "status", "blocked", "created", 1)
    )
    call(link, "ZADD", home.by_status("blocked"), 1, index_member("i", "order-1"))
    exchange(link, [quarantine.write(second, "events", "1-1", "", "it is bad", {b"m": b"x"}) for _ in range(5)])

    found = converse(link, read_facts(opened.keys.ns))
    assert found.partitions is not None
    assert [part.owner_ttl_ms is None for part in found.partitions] == [False, True]
    assert found.partitions[1].events == Inbox(2, 1000)
    assert found.partitions[0].events == Inbox(0, None)
    assert found.signals == Inbox(1, 3000)
    assert found.queues == (
        QueueFacts("idle", 0, frozenset()),
        QueueFacts("slow", 2, frozenset(("charge",))),
    )
    assert found.workers == (record,)
    assert found.flows == (FlowFacts("f", frozenset((("slow", "charge"),))),)
    assert sum(part.blocked for part in found.partitions) == 1
    assert [one.id for one in found.blocked] == ["order-1"]
    assert (found.quarantined, len(found.quarantine)) == (5, 3)
    assert abs(found.server_ms - now) < 10_000
    assert found.problems == ()
    call(link, "ZREM", home.by_status("blocked"), index_member("i", "order-1"))


def test_what_there_is_too_much_of_is_said(link: Link, opened: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_STREAMS", 2)
    call(link, "SADD", opened.keys.queues, "a", "b", "c")
    found = converse(link, read_facts(opened.keys.ns))
    assert [queue.stream for queue in found.queues] == ["a", "b"]
    assert found.left_out == ("1 task streams",)


@pytest.mark.parametrize(("field", "value"), [("partitions", "many"), ("partitions", 0), ("format", 99)])
def test_a_namespace_of_another_make(link: Link, opened: Namespace, field: str, value: object) -> None:
    call(link, "HSET", opened.keys.namespace, field, str(value))
    found = converse(link, read_facts(opened.keys.ns))
    assert found.partitions == ()
    assert opened.keys.namespace in found.problems[0]
