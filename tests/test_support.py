"""The test kit itself: a check that never fails would let everything through."""

from __future__ import annotations

import uuid

import pytest

from headrace_broker.connection import Server, call, exchange
from headrace_broker.keys import Keys
from support.leaks import check_namespace
from support.servers import kinds_for
from support.waiting import wait_until, wait_until_async


def test_keys_with_an_end_pass_and_keys_without_one_are_named(server_url: str) -> None:
    keys = Keys(f"leaky{uuid.uuid4().hex[:8]}")
    part = keys.partition(0)
    link = Server(server_url).connect()
    fine = [
        ("HSET", keys.namespace, "partitions", 4),
        ("HSET", part.meta, "commit", 1),
        ("SET", part.owner, "token", "PX", 60_000),
        ("HSET", part.header("order-1"), "inc", "aaa"),
        ("HSET", part.archive("bbb"), "inc", "bbb"),
        ("HSET", part.state("aaa"), "t1", "x"),
        ("RPUSH", part.history("bbb"), "x"),
        ("SET", part.value("zzz", "not-adopted-yet"), "x", "PX", 60_000),
    ]
    leaking = [
        ("SET", part.request("r1"), "x"),
        ("HSET", part.state("zzz"), "t1", "x"),
        ("SET", part.value("zzz", "adopted"), "x"),
        ("SET", f"{keys.ns}:mystery", "x"),
        ("SET", f"{part.tag}:mystery", "x"),
    ]
    try:
        exchange(link, [*fine, *leaking])
        complaints = check_namespace(server_url, keys.ns)
        assert sorted(complaint.split()[0] for complaint in complaints) == sorted(
            str(command[1]) for command in leaking
        )
        assert check_namespace(server_url, keys.ns) == [], "the check cleans up"

        exchange(link, [*fine, ("HSET", part.state("zzz"), "t1", "x")])
        assert check_namespace(server_url, keys.ns, frozenset(["state"])) == []
    finally:
        link.close()


@pytest.mark.leaves_keys("request")
def test_the_fixture_honours_its_mark(server_url: str, namespace: str) -> None:
    link = Server(server_url).connect()
    call(link, "SET", Keys(namespace).partition(1).request("r"), "x")
    link.close()


@pytest.mark.parametrize(
    ("marks", "kinds"),
    [
        ([], ["fake", "valkey", "redis"]),
        ([pytest.mark.fake_only], ["fake"]),
        ([pytest.mark.real_only], ["valkey", "redis"]),
        ([pytest.mark.real_only, pytest.mark.servers("fake", "redis")], ["redis"]),
    ],
)
def test_marks_choose_the_servers(marks: list[pytest.MarkDecorator], kinds: list[str]) -> None:
    assert kinds_for([decorator.mark for decorator in marks]) == kinds


def test_a_mark_for_a_server_that_does_not_exist() -> None:
    with pytest.raises(pytest.UsageError, match="keydb"):
        kinds_for([pytest.mark.servers("keydb").mark])


def test_waiting_gives_the_answer_or_says_why_it_waited() -> None:
    answers = iter([0, 0, 7])
    assert wait_until(lambda: next(answers)) == 7
    with pytest.raises(AssertionError, match=r"waited 0\.02 s in vain for a train; its last answer was \[\]"):
        wait_until(list[int], timeout=0.02, why="a train")


async def test_waiting_on_the_event_loop_takes_both_kinds_of_predicates() -> None:
    answers = iter([0, 0, 7, 0, 8])

    async def ask() -> int:
        return next(answers)

    assert await wait_until_async(ask) == 7
    assert await wait_until_async(lambda: next(answers)) == 8
    with pytest.raises(AssertionError, match="a train"):
        await wait_until_async(bool, timeout=0.02, why="a train")
