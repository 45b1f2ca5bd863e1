"""Timers: never early, never before what came in time, and never by polling."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from headrace_broker import codec, values
from headrace_broker.connection import Command
from headrace_broker.definitions import Definition

from . import flows
from .bench import Bench, check_once, completions, counted, kinds, settle, step_until, steps

pytestmark = pytest.mark.real_only

SLEEP = Definition("d", (flows.delay("sleep", 1, 60_000), flows.task("t", None)))


def test_not_before_it_is_due(bench: Bench) -> None:
    bench.start("d", bench.register(SLEEP))
    orchestrator = bench.orchestrator()
    steps(orchestrator)
    bench.pass_time(59_000)
    steps(orchestrator)
    assert bench.status("d") == "waiting"
    bench.pass_time(1_001)
    steps(orchestrator)
    assert bench.status("d") == "running"


def test_the_servers_clock_decides_not_the_hosts(bench: Bench) -> None:
    """The host's clock jumps an hour ahead of the server's: nothing is due for that."""
    bench.start("d", bench.register(SLEEP))
    orchestrator = bench.orchestrator()
    steps(orchestrator)
    bench.clock.advance(3600)
    steps(orchestrator)
    assert bench.status("d") == "waiting"


def test_time_never_runs_backwards(bench: Bench) -> None:
    """A promoted server's clock is behind."""
    bench.start("d", bench.register(flows.chain("a", "b")))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    bench.tap.ahead_ms = 3_600_000
    steps(orchestrator)
    noted = bench.meta().now
    bench.tap.ahead_ms = 0
    orchestrator.disconnect()
    bench.clock.advance(20)
    settle(orchestrator, hand)
    assert bench.meta().now >= noted
    times = [event.at for event in bench.history("d")]
    assert times == sorted(times)


def test_many_at_once_are_worked_off_in_turns(bench: Bench) -> None:
    definition = bench.register(Definition("d", (flows.delay("sleep", None, 60_000),)))
    for n in range(300):
        bench.start(f"d{n}", definition)
    orchestrator = bench.orchestrator()
    steps(orchestrator)
    assert bench.call("ZCARD", bench.part.timers) == 300
    bench.pass_time(60_000)
    while not orchestrator.step(0):
        pass
    assert bench.call("ZCARD", bench.part.timers) == 300 - 256, "at most 256 a turn"
    steps(orchestrator)
    assert bench.call("ZCARD", bench.part.by_status("completed")) == 300
    assert bench.call("EXISTS", bench.part.timers) == 0


def test_a_new_owner_finds_them(bench: Bench) -> None:
    bench.start("d", bench.register(SLEEP))
    first = bench.orchestrator(1)
    steps(first)
    first.close()
    bench.pass_time(60_000)
    settle(bench.orchestrator(2), bench.hand())
    check_once(bench.history("d"), "t")


def test_lateness_is_measured(bench: Bench) -> None:
    bench.start("d", bench.register(SLEEP))
    orchestrator = bench.orchestrator()
    steps(orchestrator)
    bench.pass_time(65_000)
    steps(orchestrator)
    assert counted(orchestrator, "timer_lateness_seconds_count") == 1
    assert 4.5 <= counted(orchestrator, "timer_lateness_seconds_sum") <= 6


class TestWhatCameInTime:
    guarded = Definition("g", (flows.task("slow", None, timeout_ms=1000),))

    def test_a_result_that_lies_in_the_inbox_when_the_guard_is_due(self, bench: Bench) -> None:
        bench.start("g", bench.register(self.guarded))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        hand.report_start(held, bench.now_ms())
        steps(orchestrator)
        hand.answer(held)
        bench.pass_time(60_000)
        steps(orchestrator)
        history = bench.history("g")
        check_once(history, "slow")
        assert kinds(history, "attempt_failed") == []

    def test_a_result_behind_a_full_read(self, bench: Bench) -> None:
        """The guard waits until the last event up to its time was applied, in however many reads."""
        bench.start("g", bench.register(self.guarded))
        orchestrator, hand = bench.orchestrator(batch=4), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        hand.report_start(held, bench.now_ms())
        steps(orchestrator)
        for n in range(15):
            bench.call("XADD", bench.part.events, "*", "junk", n)
        hand.answer(held)
        bench.pass_time(60_000)
        steps(orchestrator)
        check_once(bench.history("g"), "slow")
        assert len(bench.quarantine()) == 15

    def test_a_signal_behind_a_full_read_of_the_raw_stream(self, bench: Bench) -> None:
        default = values.inline(codec.encode("default"))
        definition = Definition("s", (flows.wait("go", None, timeout_ms=60_000, default=default),))
        bench.start("s", bench.register(definition))
        orchestrator = bench.orchestrator(batch=4)
        steps(orchestrator)
        for _ in range(15):
            bench.raw_signal("nobody", "x", "1")
        bench.raw_signal("s", "go", '"in time"')
        bench.pass_time(60_000)
        steps(orchestrator)
        assert bench.output("s") == b'j"in time"'

    def test_one_in_the_very_millisecond(self, bench: Bench) -> None:
        """The read is complete up to its TIME, but in that same millisecond there may be more to come."""
        bench.start("d", bench.register(SLEEP))
        orchestrator = bench.orchestrator()
        steps(orchestrator)
        _, score = bench.call("ZRANGE", bench.part.timers, 0, 0, "WITHSCORES")
        due = int(score)
        frozen = due

        def at_due(command: Command, reply: Any) -> Any:
            if command[0] == "TIME":
                return [str(frozen // 1000).encode(), str(frozen % 1000 * 1000).encode()]
            return reply

        bench.tap.after = at_due
        bench.clock.advance(60)
        steps(orchestrator)
        assert bench.status("d") == "waiting", "an event with this millisecond's id can still come"
        frozen = due + 1
        step_until(orchestrator, lambda: bench.status("d") == "running", "that millisecond to be over")


class TestNoPolling:
    def test_an_idle_second_costs_a_few_commands(self, wide_bench: Bench) -> None:
        """Real time, four partitions, one timer far off, one lease to judge: one blocking read, a survey, no more."""
        bench = wide_bench
        bench.start("d", bench.register(SLEEP))
        bench.hand()
        orchestrator = bench.orchestrator()
        steps(orchestrator)
        bench.clock.advance(11)  # leases may be judged from now on
        steps(orchestrator)
        bench.tap.sent.clear()
        began, turns = time.monotonic(), 0
        while time.monotonic() - began < 1.0:
            orchestrator.step(1000)
            turns += 1
        names = bench.tap.names()
        assert turns <= 6, names
        assert len(names) <= 80, names
        assert names.count("ZRANGE") + names.count("ZRANGEBYSCORE") <= 2

    def test_the_wait_ends_when_the_next_timer_is_due(self, bench: Bench) -> None:
        bench.start("d", bench.register(Definition("d", (flows.delay("sleep", 1, 150), flows.task("t", None)))))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        bench.tap.sent.clear()
        began = time.monotonic()
        while bench.status("d") == "waiting":
            orchestrator.step(1000)
            assert time.monotonic() - began < 5
        assert len(bench.tap.names()) < 60
        settle(orchestrator, hand)
        history = bench.history("d")
        check_once(history, "t")
        late = kinds(history, "timer_fired")[0].at.timestamp() * 1000 - kinds(history, "timer_started")[0].fields["due"]
        assert -0.5 <= late < 500

    def test_a_contender_without_a_partition_does_not_spin(self, bench: Bench) -> None:
        owner, contender = bench.orchestrator(1), bench.orchestrator(2)
        steps(owner)
        steps(contender)
        bench.tap.sent.clear()
        began = time.monotonic()
        while time.monotonic() - began < 0.5:
            contender.step(200)
        assert len(bench.tap.names()) < 30


def test_the_guard_counts_from_the_start_of_the_attempt(bench: Bench) -> None:
    """An attempt that waited long for a worker has its whole time-out."""
    bench.start("g", bench.register(TestWhatCameInTime.guarded))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    steps(orchestrator)
    bench.pass_time(3_600_000)
    steps(orchestrator)
    (held,) = hand.take()
    began = bench.now_ms() + bench.tap.ahead_ms
    hand.report_start(held, began)
    hand.report_start(held, began)  # told twice: one timer
    steps(orchestrator)
    assert bench.call("ZCARD", bench.part.timers) == 1
    hand.answer(held)
    settle(orchestrator, hand)
    assert completions(bench.history("g")) == ["slow"]
    assert bench.call("EXISTS", bench.part.timers) == 0


def test_a_timer_and_its_cancel_in_one_batch(bench: Bench) -> None:
    bench.start("d", bench.register(SLEEP))
    orchestrator = bench.orchestrator()
    steps(orchestrator)
    bench.cancel("d")
    bench.pass_time(61_000)
    steps(orchestrator)
    check_once(bench.history("d"), status="cancelled")
    assert kinds(bench.history("d"), "timer_fired") == []


def test_what_a_wait_for_time_sends(bench: Bench) -> None:
    """A delay set in this turn is known without asking: no read of the sorted set until it is due."""
    orchestrator = bench.orchestrator()
    bench.start("d", bench.register(SLEEP))
    steps(orchestrator)
    seen: list[Command] = []

    def note(commands: Sequence[Command]) -> None:
        seen.extend(commands)

    bench.tap.before = note
    steps(orchestrator)
    assert not [command for command in seen if str(command[0]).startswith("ZRANGE")]
    bench.tap.before = None
    bench.pass_time(60_000)
    step_until(orchestrator, lambda: bench.status("d") == "running")


def test_a_server_whose_clock_was_set_back_is_not_asked_without_end(bench: Bench) -> None:
    """By the time that was committed the timer is due; by the server's it is not, for an hour."""
    bench.start("d", bench.register(SLEEP))
    orchestrator = bench.orchestrator()
    bench.tap.ahead_ms = 3_600_000
    steps(orchestrator)
    bench.clock.advance(61)
    bench.tap.ahead_ms = 0
    bench.tap.sent.clear()
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        orchestrator.step(1000)
    assert 1 <= bench.tap.names().count("ZRANGEBYSCORE") <= 20
    bench.tap.ahead_ms = 3_600_000 + 61_000
    step_until(orchestrator, lambda: bench.status("d") == "running", "the server's clock to be right again")
