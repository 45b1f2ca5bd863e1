"""Deletion on each server: asked for once, refused for what lives, fenced, whole; then the memory, in portions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace_broker import messages
from headrace_broker.codec import INLINE_LIMIT
from headrace_broker.connection import Link, Server, call
from headrace_broker.conversations import converse
from headrace_broker.deletion import SCRIPT_LIMIT, DeleteRequest, Forgotten, forget, free
from headrace_broker.errors import Fenced, InstanceNotEnded, InstanceNotFound
from headrace_broker.instances import index_member
from headrace_broker.keys import PartitionKeys
from headrace_broker.namespace import Namespace, open_namespace
from headrace_broker.requests import Payload, StartRequest
from support.scripts import preload

LARGE = Payload(b"x" * (INLINE_LIMIT + 1))


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    preload(server_url)
    link = Server(server_url).connect()
    yield link
    link.close()


@pytest.fixture
def opened(link: Link, namespace: str) -> Namespace:
    found = converse(link, open_namespace(namespace, 1))
    call(link, "HSET", found.all_partitions[0].meta, "token", "ours")
    return found


@pytest.fixture
def keys(opened: Namespace) -> PartitionKeys:
    return opened.all_partitions[0]


def ended(link: Link, opened: Namespace, instance: str, status: str = "completed", payload: Payload = LARGE) -> bytes:
    """An instance as an owner's commit leaves it; its member of the indexes."""
    keys = opened.of(instance)
    started = converse(link, StartRequest(instance, "f", "d" * 32, payload).hold(opened))
    member = index_member(started.incarnation, instance)
    call(link, "HSET", keys.header(instance), "status", status, "ended", 5)
    call(link, "ZREM", keys.by_status("queued"), member)
    call(link, "ZADD", keys.by_status(status), 5, member)
    call(link, "ZADD", keys.retained("completed" if status == "completed" else "failed", "f"), 5, member)
    call(link, "HSET", keys.outputs(started.incarnation), "in", "m")
    call(link, "RPUSH", keys.history(started.incarnation), "chunk")
    return member.encode()


def left(link: Link, keys: PartitionKeys) -> set[str]:
    """What there is of instances."""
    cursor, names = b"0", set[str]()
    while True:
        cursor, page = call(link, "SCAN", cursor, "MATCH", keys.tag + ":*", "COUNT", 1000)
        names |= {name.decode().removeprefix(keys.tag + ":").partition(":")[0] for name in page}
        if int(cursor) == 0:
            return names - {"meta", "starts", "events", "req"}


@pytest.mark.parametrize(("status", "kind"), [("completed", "completed"), ("failed", "failed")])
def test_a_request_makes_it_due_and_tells_the_owner(link: Link, opened: Namespace, status: str, kind: str) -> None:
    keys = opened.of("a")
    member = ended(link, opened, "a", status)
    request = DeleteRequest("a")
    for _ in range(2):  # the second time after a lost reply
        assert converse(link, request.hold(opened)) == member.decode().partition(" ")[0]
    assert call(link, "ZSCORE", keys.retained("failed" if kind == "failed" else "completed", "f"), member) == b"0"
    ((_, fields),) = call(link, "XRANGE", keys.events, "-", "+")
    entry = dict(zip(fields[::2], fields[1::2], strict=True))
    assert messages.unpack(entry[b"m"]) == messages.DeleteMessage("a", request.request)
    assert (entry[b"flow"], entry[b"status"]) == (b"f", status.encode())


def test_what_lives_or_is_not_there_is_refused(link: Link, opened: Namespace) -> None:
    converse(link, StartRequest("a", "f", "d" * 32, LARGE).hold(opened))
    with pytest.raises(InstanceNotEnded, match="is queued; only what has ended can be deleted"):
        converse(link, DeleteRequest("a").hold(opened))
    for request in (DeleteRequest("b"), DeleteRequest("a", "another")):
        with pytest.raises(InstanceNotFound):
            converse(link, request.hold(opened))


def test_forgotten_and_freed_nothing_is_left(link: Link, opened: Namespace, keys: PartitionKeys) -> None:
    members = [ended(link, opened, f"i{n}") for n in range(SCRIPT_LIMIT + 3)]
    archived = ended(link, opened, "i0")
    members.append(archived)
    assert converse(link, forget(keys, "ours", "completed", "f", members)) == Forgotten(len(members), 0)
    assert left(link, keys) == {"purge", "o", "h", "v", "l"}
    rounds = 1
    while converse(link, free(keys, 10, 4)):
        rounds += 1
    assert rounds >= len(members) / 10
    assert left(link, keys) == set()


def test_only_the_owner_forgets(link: Link, opened: Namespace, keys: PartitionKeys) -> None:
    member = ended(link, opened, "a")
    with pytest.raises(Fenced):
        converse(link, forget(keys, "another", "completed", "f", [member]))
    assert left(link, keys) >= {"i", "status", "flow", "retained"}


def test_what_lives_only_leaves_the_index(link: Link, opened: Namespace, keys: PartitionKeys) -> None:
    member = ended(link, opened, "a")
    call(link, "HSET", keys.header("a"), "status", "running")
    assert converse(link, forget(keys, "ours", "completed", "f", [member])) == Forgotten(0, 1)
    assert left(link, keys) == {"i", "status", "flow", "definitions", "o", "h", "v", "l"}
