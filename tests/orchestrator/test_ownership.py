"""Who owns a partition: one at a time, soon another, and never the same token twice."""

from __future__ import annotations

from typing import Any

import pytest

from headrace_broker.commit import FIRST_COMMIT
from headrace_broker.connection import Command, Server
from headrace_broker.definitions import Definition
from headrace_broker.errors import ServerError, ServerUnreachable
from headrace_orchestrator.survey import Survey
from support.proxy import CuttingProxy
from support.waiting import wait_until

from . import flows
from .bench import Bench, Tap, check_once, counted, settle, step_until, steps

pytestmark = pytest.mark.real_only


def test_acquired_once_and_renewed(bench: Bench) -> None:
    orchestrator = bench.orchestrator(ownership_ms=60_000)
    steps(orchestrator)
    assert orchestrator.owned == [0]
    token = bench.meta().token
    assert bench.meta().epoch == 1
    bench.call("PEXPIRE", bench.part.owner, 20_000)
    steps(orchestrator)
    assert bench.call("PTTL", bench.part.owner) <= 20_000, "not renewed before a third has passed"
    bench.clock.advance(21)
    steps(orchestrator)
    assert bench.call("PTTL", bench.part.owner) > 50_000
    assert bench.meta().token == token, "a renewal is no acquisition"


def test_the_second_waits_until_the_first_lets_go(bench: Bench) -> None:
    first, second = bench.orchestrator(1), bench.orchestrator(2)
    steps(first)
    for _ in range(5):
        steps(second)
        bench.clock.advance(18.1)  # its next try
        steps(first)
    assert (first.owned, second.owned) == ([0], [])
    first.close()
    steps(second)
    assert (first.owned, second.owned) == ([], [0])
    assert bench.meta().epoch == 2


def test_a_dead_owner_is_followed_when_its_time_is_over(bench: Bench) -> None:
    first = bench.orchestrator(1, ownership_ms=300)
    second = bench.orchestrator(2, ownership_ms=300)
    steps(first)
    before = bench.meta().epoch
    first.disconnect()  # as if killed: nothing is given up
    step_until(second, lambda: second.owned == [0], "the ownership to run out")
    assert bench.meta().epoch == before + 1


def test_an_owner_whose_time_ran_out_stops(bench: Bench) -> None:
    first = bench.orchestrator(1)
    steps(first)
    bench.call("DEL", bench.part.owner)
    second = bench.orchestrator(2)
    steps(second)
    assert second.owned == [0]
    bench.clock.advance(21)
    steps(first)
    assert first.owned == []
    assert counted(first, "fenced_commits_total") == 1
    assert bench.call("GET", bench.part.owner) is not None
    steps(second)
    assert second.owned == [0], "not disturbed"


def test_the_key_is_its_own_after_a_reconnect_but_the_token_is_new(bench: Bench) -> None:
    orchestrator = bench.orchestrator()
    steps(orchestrator)
    before = bench.meta()
    orchestrator.disconnect()
    bench.clock.advance(20)
    steps(orchestrator)
    after = bench.meta()
    assert orchestrator.owned == [0]
    assert after.token != before.token
    assert after.epoch == before.epoch + 1
    assert after.commit == before.commit


def test_tokens_are_hex_and_distinct(bench: Bench) -> None:
    tokens: set[str] = set()
    for seed in range(5):
        orchestrator = bench.orchestrator(seed)
        steps(orchestrator)
        tokens.add(bench.meta().token)
        orchestrator.close()
    assert len(tokens) == 5
    assert all(int(token, 16) for token in tokens)


def test_work_goes_on_where_the_first_left_it(bench: Bench) -> None:
    bench.start("c", bench.register(flows.chain("a", "b", "c")))
    hand = bench.hand()
    first = bench.orchestrator(1)
    steps(first)
    hand.work()
    steps(first)
    first.close()
    settle(bench.orchestrator(2), hand)
    check_once(bench.history("c"), "a", "b", "c")


def test_closing_a_stale_owner_disturbs_nobody(wide_bench: Bench) -> None:
    """It has read raw signals that `meta` does not know of yet, so closing wants to write them down."""
    bench = wide_bench
    bench.hand()
    first, second = bench.orchestrator(1), bench.orchestrator(2)
    steps(first)
    bench.start("i", bench.register(flows.chain("a")))
    bench.raw_signal("i", "x", "1")
    steps(first)
    for number in range(4):
        bench.call("DEL", bench.keys.partition(number).owner)
    steps(second)
    assert second.owned == [0, 1, 2, 3]
    first.close()
    steps(second)
    assert second.owned == [0, 1, 2, 3]


def test_closing_gives_up_every_partition_though_one_is_lost(wide_bench: Bench) -> None:
    bench = wide_bench
    bench.hand()
    first, second = bench.orchestrator(1), bench.orchestrator(2)
    steps(first)
    bench.raw_signal("i", "x", "1")
    steps(first)
    bench.call("HSET", bench.part.meta, "token", "another")
    first.close()
    steps(second)
    assert second.owned == [0, 1, 2, 3]


def test_partitions_are_shared_out(wide_bench: Bench) -> None:
    bench = wide_bench
    definition = bench.register(flows.chain("a", "b"))
    hand = bench.hand()
    first, second = bench.orchestrator(1), bench.orchestrator(2)
    steps(first)
    bench.call("DEL", bench.keys.partition(2).owner)
    steps(second)
    bench.clock.advance(21)
    steps(first)
    assert (first.owned, second.owned) == ([0, 1, 3], [2])
    for n in range(12):
        bench.start(f"i{n}", definition)
    settle([first, second], hand)
    for n in range(12):
        check_once(bench.history(f"i{n}"), "a", "b")


class TestStrayEntriesInTaskStreams:
    def test_before_the_first_owner(self, bench: Bench) -> None:
        hand = bench.hand()
        bench.call("XADD", bench.part.tasks("default"), f"{FIRST_COMMIT + 500}-3", "foo", "bar")
        bench.start("c", bench.register(flows.chain("a")))
        orchestrator = bench.orchestrator()
        steps(orchestrator)
        assert bench.meta().commit > FIRST_COMMIT + 500
        assert len(hand.take_raw()) == 2
        assert orchestrator.owned == [0]

    def test_an_owner_that_was_overtaken_lifts_nothing(self, bench: Bench) -> None:
        """The number is lifted with the token or not at all: another owner's commits must not be counted back."""
        hand = bench.hand()
        key, stray = bench.part.tasks("default"), f"{FIRST_COMMIT + 500}-3"
        bench.ask(("XADD", key, stray, "foo", "bar"), ("XDEL", key, stray))  # the stream's last id stays
        second = bench.orchestrator(2, connector=bench.server)
        bench.start("c", bench.register(flows.chain("a")))

        def overtaken(command: Command, reply: Any) -> Any:
            """Our token is written. The other takes over before we do anything more."""
            if command[0] == "EVAL" and "HSET" in str(command[1]):
                bench.tap.after = None
                assert bench.meta().commit == FIRST_COMMIT + 500, "token and number in one step"
                bench.call("DEL", bench.part.owner)
                steps(second)
            return reply

        bench.tap.after = overtaken
        first = bench.orchestrator(1)
        steps(first)
        assert bench.tap.after is None
        assert (first.owned, second.owned) == ([], [0])
        settle(second, hand)
        check_once(bench.history("c"), "a")
        assert counted(second, "fenced_commits_total") == 0

    def test_while_it_is_owned(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a", "b"))
        hand = bench.hand()
        orchestrator = bench.orchestrator()
        for n in range(3):
            bench.start(f"c{n}", definition)
            steps(orchestrator)
            bench.call("XADD", bench.part.tasks("default"), "*", "foo", "bar")
        key = hand.sources[0].key
        assert len(hand.take_raw()) == 6
        for entry, fields in bench.call("XRANGE", key, "-", "+"):
            if fields[0] == b"foo":  # as a worker does with what is no task
                bench.ask(("XACK", key, "workers", entry), ("XDEL", key, entry))
        assert orchestrator.owned == [0]
        bench.start("after", definition)
        steps(orchestrator)
        settle(orchestrator, hand)
        check_once(bench.history("after"), "a", "b")


@pytest.mark.parametrize("stream", ["with entries", "gone"])
def test_a_cursor_above_the_end_of_the_raw_signals_goes_to_the_end(bench: Bench, stream: str) -> None:
    """As after a promotion that lost the tail: a read from that cursor would find nothing for ever."""
    bench.start("c", bench.register(Definition("s", (flows.wait("go", None),))))
    first = bench.orchestrator(1)
    steps(first)
    bench.raw_signal("nobody", "go", "1")
    first.close()
    if stream == "gone":
        bench.call("DEL", bench.keys.signals)
    bench.call("HSET", bench.part.meta, "signals", "9999999999999-7")
    second = bench.orchestrator(2)
    steps(second)
    assert bench.quarantine() == [], "what lies before the end is not read again"
    bench.raw_signal("c", "go", '"new"')
    bench.hold(Survey(bench.keys, 1, bench.clock).take([0]))  # the trimming owner of partition 0 may be another
    steps(second)
    assert bench.output("c") == b'j"new"'


def test_the_server_goes_away_and_comes_back(bench: Bench) -> None:
    bench.start("c", bench.register(flows.chain("a", "b")))
    hand = bench.hand()
    with CuttingProxy(bench.server.url) as proxy:
        orchestrator = bench.orchestrator(connector=Tap(Server(proxy.url)))
        steps(orchestrator)
        hand.work()
        proxy.go_down()
        with pytest.raises(ServerUnreachable):
            steps(orchestrator)
        assert orchestrator.owned == []
        with pytest.raises(ServerUnreachable):
            orchestrator.step(0)
        proxy.come_up()
        bench.clock.advance(20)
        step_until(orchestrator, lambda: orchestrator.owned == [0])
        settle(orchestrator, hand)
        orchestrator.disconnect()
    check_once(bench.history("c"), "a", "b")


def test_a_server_that_loads_its_data_is_waited_for(bench: Bench) -> None:
    """It answers, but with an error: at the first question of a connection, and later."""
    bench.start("c", bench.register(flows.chain("a", "b")))
    hand = bench.hand()
    with CuttingProxy(bench.server.url) as proxy:
        orchestrator = bench.orchestrator(connector=Tap(Server(proxy.url)))
        proxy.refuse()
        for _ in range(2):
            with pytest.raises(ServerError, match="is loading"):
                orchestrator.step(0)
        proxy.accept()
        steps(orchestrator)
        assert orchestrator.owned == [0]
        hand.work()
        proxy.refuse()
        with pytest.raises(ServerError, match="is loading"):
            orchestrator.step(0)
        assert orchestrator.owned == [], "nothing is trusted that was known before"
        proxy.accept()
        bench.clock.advance(20)
        step_until(orchestrator, lambda: orchestrator.owned == [0])
        settle(orchestrator, hand)
        orchestrator.disconnect()
    check_once(bench.history("c"), "a", "b")


def test_waiting_for_work_ends_when_some_comes(bench: Bench) -> None:
    """The blocking read, with real time: it ends at the first entry of any inbox."""
    definition = bench.register(flows.chain("a"))
    hand = bench.hand()
    orchestrator = bench.orchestrator()
    steps(orchestrator)
    bench.start("c", definition)
    wait_until(lambda: orchestrator.step(1000) and bench.call("XLEN", bench.part.tasks("default")) == 1)
    hand.work()
    wait_until(lambda: orchestrator.step(1000) and bench.status("c") == "completed")


def test_a_server_that_refuses_to_write_is_waited_for(bench: Bench) -> None:
    """As one whose disk is full or whose replicas are gone: reads go on, and so must the process."""
    bench.start("c", bench.register(flows.chain("a", "b")))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    steps(orchestrator)
    bench.raw_signal("c", "s", "1")  # there will be something to trim
    hand.work()
    for refuse_at_once in (True, False):
        if not refuse_at_once:
            bench.clock.advance(20)
            steps(orchestrator)  # so that the survey is what finds out
            bench.clock.advance(2)
        bench.call("CONFIG", "SET", "min-replicas-to-write", 1)
        try:
            for _ in range(5):
                steps(orchestrator)
                bench.clock.advance(20)
        finally:
            bench.call("CONFIG", "SET", "min-replicas-to-write", 0)
        bench.clock.advance(20)
    settle(orchestrator, hand)
    check_once(bench.history("c"), "a", "b")
