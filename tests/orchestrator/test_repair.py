"""A strange hand made a command of a commit fail: the partition is repaired, and nothing it had handed out is lost."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from headrace_broker import records
from headrace_broker.commit import FIRST_COMMIT
from headrace_broker.connection import Command, Reply
from headrace_broker.definitions import Definition
from headrace_broker.errors import ServerError
from headrace_broker.keys import partition_of

from . import flows
from .bench import Bench, Counting, check_once, counted, kinds, settle, step_until, steps

pytestmark = pytest.mark.real_only

FAR_AHEAD = f"{2 * FIRST_COMMIT}-0"


def mark(bench: Bench) -> bytes | None:
    return bench.call("HGET", bench.part.meta, "repair") or None


def block_our_ids(bench: Bench, id: str = FAR_AHEAD) -> None:
    """The entry itself may be gone at once: the stream's last id stays."""
    key = bench.part.tasks("default")
    bench.ask(("XADD", key, id, "strange", "entry"), ("XDEL", key, id))


class TestAnEntryWithAnIdAboveOurs:
    def test_what_the_damaged_commit_lost_is_handed_out_again(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a", "b"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        ids = [f"c{n}" for n in range(5)]
        bench.start("before", definition)
        steps(orchestrator)
        block_our_ids(bench)
        for id in ids:
            bench.start(id, definition)
        steps(orchestrator)
        assert orchestrator.owned == [0]
        assert counted(orchestrator, "damaged_commits_total") == 1
        assert mark(bench) is None, "the repair is finished"
        assert bench.meta().commit > 2 * FIRST_COMMIT
        settle(orchestrator, hand)
        check_once(bench.history("before"), "a", "b")
        for id in ids:
            check_once(bench.history(id), "a", "b")
            assert len(kinds(bench.history(id), "redelivered")) == 1
        assert not kinds(bench.history("before"), "redelivered"), "it was never lost"

    def test_an_owner_killed_between_damage_and_repair_is_followed_by_one_that_repairs(self, bench: Bench) -> None:
        bench.start("c", bench.register(flows.chain("a", "b")))
        first, hand = bench.orchestrator(1), bench.hand()
        steps(first)
        block_our_ids(bench)
        hand.work()
        die_in_the_damaged_commit(bench, first)
        bench.call("DEL", bench.part.owner)
        second = bench.orchestrator(2)
        steps(second)
        settle(second, hand)
        check_once(bench.history("c"), "a", "b")

    def test_an_owner_killed_in_the_middle_of_a_repair_is_followed_by_one_that_finishes_it(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a", "b"))
        first, hand = bench.orchestrator(1), bench.hand()
        steps(first)
        block_our_ids(bench)
        for n in range(3):
            bench.start(f"c{n}", definition)
        while mark(bench) is None:
            first.step(0)
        first.disconnect()
        bench.call("DEL", bench.part.owner)
        second = bench.orchestrator(2)
        steps(second)
        assert mark(bench) is None
        settle(second, hand)
        for n in range(3):
            check_once(bench.history(f"c{n}"), "a", "b")

    def test_a_result_that_comes_during_the_repair_is_not_overtaken(self, bench: Bench) -> None:
        bench.start("c", bench.register(flows.chain("a", "b")))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        block_our_ids(bench)
        bench.start("d", bench.register(flows.chain("a", "b")))
        while mark(bench) is None:
            orchestrator.step(0)
        hand.answer(held)
        steps(orchestrator)
        settle(orchestrator, hand)
        check_once(bench.history("c"), "a", "b")
        assert not kinds(bench.history("c"), "redelivered")
        check_once(bench.history("d"), "a", "b")

    def test_again_and_again(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a", "b"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        for n in range(2, 6):
            block_our_ids(bench, f"{n * 2 * FIRST_COMMIT}-0")
            bench.start(f"c{n}", definition)
            steps(orchestrator)
            bench.clock.advance(20)
        settle(orchestrator, hand)
        for n in range(2, 6):
            check_once(bench.history(f"c{n}"), "a", "b")

    def test_many_instances_are_searched_in_slices(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        for n in range(150):
            bench.start(f"kept{n}", definition)
        steps(orchestrator)
        block_our_ids(bench)
        for n in range(150):
            bench.start(f"lost{n}", definition)
        steps(orchestrator)
        settle(orchestrator, hand)
        for n in range(150):
            assert not kinds(bench.history(f"kept{n}"), "redelivered")
            check_once(bench.history(f"kept{n}"), "a")
            check_once(bench.history(f"lost{n}"), "a")

    def test_an_id_that_leaves_no_room_is_named_with_what_mends_it(
        self, wide_bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench = wide_bench
        definition = bench.register(flows.chain("a", "b"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        key = bench.part.tasks("default")
        bench.call("XADD", key, f"{2**64 - 1}-{2**64 - 1}", "strange", "entry")
        for n in range(12):
            bench.start(f"c{n}", definition)
        steps(orchestrator)
        assert orchestrator.owned == [1, 2, 3], "the others go on"
        assert f"redis-cli DEL '{key}'" in caplog.text
        bench.call("DEL", key)
        hand = bench.hand("another")
        bench.clock.advance(40)
        settle(orchestrator, hand)
        assert orchestrator.owned == [0, 1, 2, 3]
        for n in range(12):
            check_once(bench.history(f"c{n}"), "a", "b")


class TestAKeyOfAnotherType:
    def test_timers_are_set_again_when_it_is_gone(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        bench.start("sleeper", bench.register(Definition("s", (flows.delay("d", 1, 60_000), flows.task("a", None)))))
        retrying = bench.register(Definition("r", (flows.retrying("b", None, 3, 30_000),)))
        bench.start("retrying", retrying)
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        bench.call("SET", bench.part.timers, "strange")
        hand.answer(held, outcome="failed")
        steps(orchestrator)
        assert orchestrator.owned == []
        assert f"redis-cli DEL '{bench.part.timers}'" in caplog.text
        bench.call("DEL", bench.part.timers)
        bench.pass_time(40_000)
        settle(orchestrator, hand)
        assert bench.status("retrying") == "completed"
        assert bench.status("sleeper") == "waiting"
        bench.pass_time(30_000)
        settle(orchestrator, hand)
        check_once(bench.history("sleeper"), "a")

    @pytest.mark.parametrize("name", ["events", "starts", "tasks"])
    def test_any_key_of_a_partition_stops_that_one_only(self, wide_bench: Bench, name: str) -> None:
        bench = wide_bench
        definition = bench.register(flows.chain("a", "b"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        for n in range(12):
            bench.start(f"c{n}", definition)
        steps(orchestrator)
        key = bench.part.tasks("default") if name == "tasks" else getattr(bench.part, name)
        bench.call("DEL", key)
        bench.call("SET", key, "strange")
        turn_on(orchestrator, bench)
        assert orchestrator.owned == [1, 2, 3]
        bench.call("DEL", key)
        hand = bench.hand("another")
        bench.clock.advance(40)
        steps(orchestrator)
        bench.clock.advance(40)
        settle(orchestrator, hand)
        for n in range(12):
            check_once(bench.history(f"c{n}"), "a", "b")

    def test_a_meta_of_another_type_is_waited_for_too(self, bench: Bench) -> None:
        bench.start("c", bench.register(flows.chain("a")))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        bench.call("SET", bench.part.meta, "strange")
        turn_on(orchestrator, bench)
        assert orchestrator.owned == []
        bench.call("DEL", bench.part.meta)
        bench.clock.advance(40)
        settle(orchestrator, hand)
        check_once(bench.history("c"), "a")


def turn_on(orchestrator: Counting, bench: Bench) -> None:
    """Some turns with pauses between, as its process makes them, server errors and all."""
    for _ in range(4):
        with suppress(ServerError):
            steps(orchestrator)
        bench.clock.advance(16)


def die_in_the_damaged_commit(bench: Bench, orchestrator: Counting) -> None:
    """Lets the next commit be sent and applied in part, and ends before anything is made of its reply."""

    def dying(command: Command, reply: Reply) -> Reply:
        if command[0] == "EXEC" and any(isinstance(part, ServerError) for part in reply or ()):
            raise SystemExit
        return reply

    bench.tap.after = dying
    with pytest.raises(SystemExit):
        steps(orchestrator)
    bench.tap.after = None
    orchestrator.disconnect()


class TestIdsThatOnlyAStrangeHandWrites:
    def test_one_with_the_number_of_the_next_commit_though_the_reply_is_lost(self, bench: Bench) -> None:
        """After the damaged commit the stream's last id is of that very commit: only how many it made tells."""
        bench.start("c", bench.register(flows.chain("a", "b")))
        first, hand = bench.orchestrator(1), bench.hand()
        steps(first)
        block_our_ids(bench, f"{bench.meta().commit + 1}-999")
        hand.work()
        die_in_the_damaged_commit(bench, first)
        bench.call("DEL", bench.part.owner)
        second = bench.orchestrator(2)
        settle(second, hand)
        check_once(bench.history("c"), "a", "b")
        assert mark(bench) is None

    def test_an_acquisition_without_damage_repairs_nothing(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench.start("c", bench.register(flows.chain("a", "b")))
        hand = bench.hand()
        for seed in range(3):
            orchestrator = bench.orchestrator(seed)
            steps(orchestrator)
            hand.work()
            steps(orchestrator)
            orchestrator.close()
        check_once(bench.history("c"), "a", "b")
        assert "repaired" not in caplog.text

    @pytest.mark.parametrize("inbox", ["events", "starts"])
    def test_in_an_inbox_they_stop_the_partition_until_the_key_is_gone(
        self, bench: Bench, inbox: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        definition = bench.register(flows.chain("a", "b"))
        bench.start("c", definition)
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        key = getattr(bench.part, inbox)
        bench.call("XADD", key, f"{2**64 - 1}-{2**64 - 1}", "m", "junk")
        turn_on(orchestrator, bench)
        assert orchestrator.owned == []
        assert f"redis-cli DEL '{key}'" in caplog.text
        bench.call("DEL", key)
        bench.clock.advance(20)
        steps(orchestrator)
        hand.answer(held)
        bench.start("d", definition)
        settle(orchestrator, hand)
        check_once(bench.history("c"), "a", "b")
        check_once(bench.history("d"), "a", "b")

    def test_in_the_raw_signals_they_stop_no_leases_and_later_signals_come_in(self, bench: Bench) -> None:
        bench.start("c", bench.register(flows.chain("a")))
        bench.start("s", bench.register(Definition("s", (flows.wait("go", 1), flows.task("t", None)))))
        bench.call("XADD", bench.keys.signals, f"{2**64 - 1}-{2**64 - 1}", "instance", "x", "name", "y")
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        hand.go_idle(held)
        bench.clock.advance(11)
        steps(orchestrator)
        assert kinds(bench.history("c"), "redelivered")
        bench.call("DEL", bench.keys.signals)
        bench.raw_signal("s", "go", "1")
        bench.clock.advance(21)  # a renewal
        settle(orchestrator, hand)
        check_once(bench.history("s"), "t")
        assert counted(orchestrator, "signal_cursors_moved_total") >= 1


class TestGarbageInKeysOfOurs:
    """Whatever bytes lie there: the process lives, and every other partition goes on."""

    @pytest.fixture
    def orchestrator(self, wide_bench: Bench) -> Counting:
        return wide_bench.orchestrator()

    @pytest.mark.parametrize(
        "garbage",
        [
            ("SADD", "{ns}:queues", b"\xff"),
            ("SADD", "{ns}:flows", b"\xff"),
            ("ZADD", "{ns}:workers", 99999999999999, b"\xff"),
            ("ZADD", "{p}:status:running", 1, b"\xff\xfe"),
            ("ZADD", "{p}:timers", 1, b"\xff\xfe"),
        ],
    )
    def test_members_that_are_no_text_are_passed_over(
        self, wide_bench: Bench, orchestrator: Counting, garbage: tuple[Any, ...]
    ) -> None:
        bench = wide_bench
        definition = bench.register(flows.chain("a", "b"))
        key = garbage[1].replace("{ns}", bench.keys.ns).replace("{p}", bench.part.tag)
        bench.call(garbage[0], key, *garbage[2:])
        hand = bench.hand()
        block_our_ids(bench)  # so that there is something to repair, too
        for n in range(12):
            bench.start(f"c{n}", definition)
        settle(orchestrator, hand)
        bench.clock.advance(2)
        settle(orchestrator, hand)
        assert orchestrator.owned == [0, 1, 2, 3]
        for n in range(12):
            check_once(bench.history(f"c{n}"), "a", "b")
        bench.call("ZREM" if garbage[0] == "ZADD" else "SREM", key, garbage[-1])

    @pytest.mark.parametrize(
        ("field", "value"),
        [("signals", "garbage"), ("events", "garbage"), ("events", b"\xff"), ("commit", "9" * 23), ("commit", "x")],
    )
    def test_a_field_of_meta_is_named_with_what_mends_it(
        self,
        wide_bench: Bench,
        orchestrator: Counting,
        field: str,
        value: str | bytes,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        bench = wide_bench
        definition = bench.register(flows.chain("a", "b"))
        hand = bench.hand()
        bench.call("HSET", bench.part.meta, field, value)
        for n in range(12):
            bench.start(f"c{n}", definition)
        turn_on(orchestrator, bench)
        assert orchestrator.owned == [1, 2, 3]
        assert f"redis-cli HDEL '{bench.part.meta}' {field}" in caplog.text
        bench.call("HDEL", bench.part.meta, field)
        bench.clock.advance(20)
        settle(orchestrator, hand)
        for n in range(12):
            check_once(bench.history(f"c{n}"), "a", "b")

    @pytest.mark.parametrize(
        ("field", "record"),
        [
            ("txx", records.Token(0, 0, 0, "in", 1, 1, "0-a-1-0")),
            ("t9", records.Token(0, 0, 0, "in", 1, 1, "nonsense")),
        ],
    )
    def test_a_token_that_is_none_harms_its_instance_only(
        self, wide_bench: Bench, orchestrator: Counting, field: str, record: records.Token
    ) -> None:
        bench = wide_bench
        definition = bench.register(flows.chain("a", "b"))
        hand = bench.hand()
        ids = [f"c{n}" for n in range(12)]
        incarnations = {id: bench.start(id, definition) for id in ids}
        steps(orchestrator)
        bad = next(id for id in ids if partition_of(id, 4) == 0)
        bench.call("HSET", bench.part.state(incarnations[bad]), field, records.pack(record))
        block_our_ids(bench)
        hand.work()
        settle(orchestrator, hand)
        assert orchestrator.owned == [0, 1, 2, 3]
        for id in ids:
            if id != bad:
                check_once(bench.history(id), "a", "b")
        assert bench.call("HGET", bench.part.header(bad), "status") == b"blocked"

    @pytest.mark.parametrize("name", ["signals", "queues", "workers", "flows"])
    def test_a_key_of_the_namespace_of_another_type_is_named(
        self, wide_bench: Bench, orchestrator: Counting, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench = wide_bench
        key = getattr(bench.keys, name)
        bench.call("DEL", key)
        bench.call("SET", key, "strange")
        turn_on(orchestrator, bench)
        assert orchestrator.owned == []
        assert f"redis-cli DEL '{key}'" in caplog.text
        bench.call("DEL", key)
        bench.clock.advance(20)
        definition = bench.register(flows.chain("a"))
        bench.start("c", definition)
        settle(orchestrator, bench.hand())
        check_once(bench.history("c"), "a")

    def test_an_owner_that_never_runs_out_is_given_an_end(self, bench: Bench) -> None:
        bench.call("SET", bench.part.owner, "strange")
        orchestrator = bench.orchestrator(ownership_ms=300)
        step_until(orchestrator, lambda: orchestrator.owned == [0], "the strange owner to run out")
