"""Every node kind, end to end through real streams: what the history says happened once, happened once."""

from __future__ import annotations

import pytest

from headrace_broker import codec, payloads, values
from headrace_broker.commit import FIRST_COMMIT
from headrace_broker.definitions import Definition

from . import flows
from .bench import Bench, check_once, completions, counted, kinds, settle, step_until, steps

real = pytest.mark.real_only
"""fakeredis is a thousand times slower; one test of each kind is enough for it."""


def test_a_chain(bench: Bench) -> None:
    bench.start("c", bench.register(flows.chain("a", "b", "c")), 7)
    assert bench.status("c") == "queued"
    orchestrator, hand = bench.orchestrator(), bench.hand()
    settle(orchestrator, hand)
    check_once(bench.history("c"), "a", "b", "c")
    assert [payloads.load(held.task.value) for held in hand.taken] == [7, "a", "b"]
    assert payloads.load(bench.output("c")) == "c"
    assert bench.status("c") == "completed"
    assert counted(orchestrator, "instances_started_total") == 1
    assert counted(orchestrator, "instances_ended_total", status="completed") == 1
    assert counted(orchestrator, "attempts_total", outcome="completed") == 3
    for key in (bench.part.events, bench.part.starts, bench.part.tasks("default")):
        assert bench.call("XLEN", key) == 0


@real
def test_many_instances_over_all_partitions(wide_bench: Bench) -> None:
    bench = wide_bench
    definition = bench.register(flows.chain("a", "b", "c"))
    for n in range(60):
        bench.start(f"i{n}", definition, n)
    settle(bench.orchestrator(batch=16), bench.hand())
    for n in range(60):
        check_once(bench.history(f"i{n}"), "a", "b", "c")
    assert all(bench.meta(n).commit > FIRST_COMMIT for n in range(4)), "all partitions had work"


def test_a_fork_and_its_join(bench: Bench) -> None:
    definition = Definition(
        "f",
        (
            flows.task("a", 1),
            flows.fork("fork", 4, x=2, y=3),
            flows.task("b", None),
            flows.task("c", None),
            flows.task("join", None),
        ),
    )
    bench.start("f", bench.register(definition), 1)
    hand = bench.hand()
    settle(bench.orchestrator(), hand)
    history = bench.history("f")
    assert sorted(completions(history)) == ["a", "b", "c", "join"]
    assert len(kinds(history, "joined")) == 1
    arguments = payloads.arguments(hand.taken[-1].task.value)
    assert arguments is not None
    assert {name: payloads.load(value) for name, value in arguments.items()} == {"x": "b", "y": "c"}


@pytest.mark.parametrize(("key", "ran"), [("left", "l"), ("nowhere", "d")])
@real
def test_a_route(bench: Bench, key: str, ran: str) -> None:
    definition = Definition(
        "r",
        (
            flows.route("which", 3, default=2, left=1),
            flows.task("l", 3),
            flows.task("d", 3),
            flows.task("end", None),
        ),
    )
    bench.start("r", bench.register(definition), 5)
    orchestrator, hand = bench.orchestrator(), bench.hand()
    steps(orchestrator)
    (held,) = hand.take()
    hand.answer(held, route=key)
    settle(orchestrator, hand)
    check_once(bench.history("r"), "which", ran, "end")
    assert payloads.load(hand.taken[1].task.value) == 5, "the branch gets the router's input"


def test_a_route_to_nowhere_fails_the_instance(bench: Bench) -> None:
    definition = Definition("r", (flows.route("which", None, left=1), flows.task("l", None)))
    bench.start("r", bench.register(definition))
    settle(bench.orchestrator(), bench.hand(), route="right")
    snapshot = bench.snapshot("r")
    assert snapshot.status == "failed"
    assert snapshot.error is not None
    assert snapshot.error.type == "UnknownRoute"


class TestSignals:
    definition = Definition("s", (flows.wait("go", 1), flows.task("t", None)))

    @real
    def test_one_that_came_before_the_wait_is_taken_at_once(self, bench: Bench) -> None:
        bench.start("s", bench.register(self.definition))
        bench.signal("s", "go", "early")  # no orchestrator has seen the start yet
        hand = bench.hand()
        settle(bench.orchestrator(), hand)
        check_once(bench.history("s"), "t")
        assert payloads.load(hand.taken[0].task.value) == "early"

    def test_one_that_is_waited_for(self, bench: Bench) -> None:
        bench.start("s", bench.register(self.definition))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        assert [str(wait) for wait in bench.snapshot("s").waiting_for] == ["signal:go"]
        bench.signal("s", "other", 0)
        bench.signal("s", "go", 1)
        bench.signal("s", "go", 2)
        settle(orchestrator, hand)
        check_once(bench.history("s"), "t")
        assert payloads.load(hand.taken[0].task.value) == 1
        assert len(kinds(bench.history("s"), "signal_received")) == 3

    @real
    def test_two_waits_take_one_each_in_order(self, bench: Bench) -> None:
        definition = Definition(
            "s", (flows.wait("go", 1), flows.task("t", 2), flows.wait("go", 3), flows.task("u", None))
        )
        bench.start("s", bench.register(definition))
        for n in (1, 2):
            bench.signal("s", "go", n)
        hand = bench.hand()
        settle(bench.orchestrator(), hand)
        assert [payloads.load(held.task.value) for held in hand.taken] == [1, 2]

    @real
    def test_the_raw_twin(self, wide_bench: Bench) -> None:
        bench = wide_bench
        definition = bench.register(self.definition)
        for n in range(8):
            bench.start(f"s{n}", definition)
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        for n in range(8):
            bench.raw_signal(f"s{n}", "go", f'{{"n": {n}}}')
        settle(orchestrator, hand)
        for n in range(8):
            check_once(bench.history(f"s{n}"), "t")
        got = {held.task.instance: payloads.load(held.task.value) for held in hand.taken}
        assert got == {f"s{n}": {"n": n} for n in range(8)}

    @real
    def test_the_raw_stream_is_trimmed_when_every_partition_has_read_it(self, wide_bench: Bench) -> None:
        bench = wide_bench
        definition = bench.register(self.definition)
        bench.hand()
        bench.start("s", definition)
        orchestrator = bench.orchestrator()
        steps(orchestrator)
        bench.raw_signal("s", "go", "1")
        steps(orchestrator)
        assert bench.call("XLEN", bench.keys.signals) == 1, "three partitions passed over it without a commit"
        bench.clock.advance(30)  # a renewal is due, and with it their cursors are written down
        steps(orchestrator)
        bench.clock.advance(2)
        steps(orchestrator)
        assert bench.call("XLEN", bench.keys.signals) == 0

    @real
    def test_a_time_out_goes_on_with_the_default(self, bench: Bench) -> None:
        default = values.inline(codec.encode("nobody came"))
        definition = Definition(
            "s", (flows.wait("go", 1, timeout_ms=3_600_000, default=default), flows.task("t", None))
        )
        bench.start("s", bench.register(definition))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        bench.pass_time(3_600_100)
        settle(orchestrator, hand)
        check_once(bench.history("s"), "t")
        assert payloads.load(hand.taken[0].task.value) == "nobody came"
        assert bench.call("ZCARD", bench.part.timers) == 0

    @real
    def test_a_signal_takes_its_timer_along(self, bench: Bench) -> None:
        definition = Definition("s", (flows.wait("go", 1, timeout_ms=3_600_000), flows.task("t", None)))
        bench.start("s", bench.register(definition))
        orchestrator = bench.orchestrator()
        steps(orchestrator)
        assert bench.call("ZCARD", bench.part.timers) == 1
        bench.signal("s", "go")
        steps(orchestrator)
        assert bench.call("ZCARD", bench.part.timers) == 0

    @real
    def test_input_and_payload_as_a_pair(self, bench: Bench) -> None:
        definition = Definition("s", (flows.wait("go", 1, keep_input=True), flows.task("t", None)))
        bench.start("s", bench.register(definition), "input")
        bench.signal("s", "go", "payload")
        hand = bench.hand()
        settle(bench.orchestrator(), hand)
        assert payloads.load(hand.taken[0].task.value) == ("input", "payload")


@real
def test_a_delay_is_waited_for_in_real_time(bench: Bench) -> None:
    bench.start("d", bench.register(Definition("d", (flows.delay("sleep", 1, 30), flows.task("t", None)))))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    steps(orchestrator)
    step_until(orchestrator, lambda: hand.work(), "the delay's end")
    settle(orchestrator, hand)
    history = bench.history("d")
    check_once(history, "t")
    (started,), (fired,) = kinds(history, "timer_started"), kinds(history, "timer_fired")
    assert fired.at.timestamp() * 1000 >= started.fields["due"] - 0.5


class TestRetries:
    def test_until_it_works(self, bench: Bench) -> None:
        bench.start("r", bench.register(Definition("r", (flows.retrying("a", None, 2, 5_000),))))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        for attempt in (1, 2):
            steps(orchestrator)
            (held,) = hand.take()
            assert (held.task.attempt, held.task.max_attempts) == (attempt, 3)
            hand.fail(held)
            steps(orchestrator)
            assert hand.take() == [], "it backs off first"
            assert bench.status("r") == "waiting"
            bench.pass_time(20_000)
        settle(orchestrator, hand)
        history = bench.history("r")
        check_once(history, "a")
        assert [event.fields["attempt"] for event in kinds(history, "attempt_failed")] == [1, 2]
        delays = [event.fields["due"] - event.at.timestamp() * 1000 for event in kinds(history, "retry_scheduled")]
        assert delays == pytest.approx([5_000, 10_000], abs=1)

    @real
    def test_in_vain(self, bench: Bench) -> None:
        bench.start("r", bench.register(Definition("r", (flows.retrying("a", None, 1),))))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        for _ in range(2):
            steps(orchestrator)
            for held in hand.take():
                hand.fail(held)
            steps(orchestrator)
            bench.pass_time(1000)
        snapshot = bench.snapshot("r")
        assert snapshot.status == "failed"
        assert snapshot.error is not None
        assert (snapshot.error.type, snapshot.error.node) == ("ValueError", "a")
        assert counted(orchestrator, "attempts_total", outcome="failed") == 2

    @real
    def test_a_failure_that_knows_better(self, bench: Bench) -> None:
        bench.start("r", bench.register(Definition("r", (flows.retrying("a", None, 5),))))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        hand.fail(hand.take()[0], may_retry=False)
        steps(orchestrator)
        assert bench.status("r") == "failed"

    @real
    def test_returned_and_unknown_spend_no_attempt(self, bench: Bench) -> None:
        bench.start("r", bench.register(flows.chain("a")))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        hand.answer(hand.take()[0], "returned")
        steps(orchestrator)
        (held,) = hand.take()
        assert (held.task.attempt, held.task.losses) == (1, 0)
        hand.answer(held, "unknown")
        steps(orchestrator)
        assert hand.take() == [], "nobody may know it: not at once"
        bench.pass_time(5_000)
        settle(orchestrator, hand)
        check_once(bench.history("r"), "a")
        assert counted(orchestrator, "redeliveries_total", cause="returned") == 1


class TestTimeOuts:
    definition = Definition("t", (flows.retrying("slow", None, 1, 60_000, timeout_ms=1000),))

    @real
    def test_the_guard_ends_what_no_worker_ends(self, bench: Bench) -> None:
        bench.start("t", bench.register(self.definition))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        hand.report_start(held, bench.now_ms())
        steps(orchestrator)
        bench.pass_time(6_000)
        steps(orchestrator)
        assert hand.holds(held), "a lease after the time-out, not before: the worker has that long to say it itself"
        bench.pass_time(5_100)
        steps(orchestrator)
        assert not hand.holds(held), "the revoking commit takes it from the worker"
        hand.settle(held, hand.result(held, value=values.inline(codec.encode("late"))))
        bench.pass_time(60_000)
        settle(orchestrator, hand)
        history = bench.history("t")
        check_once(history, "slow")
        (failed,) = kinds(history, "attempt_failed")
        assert (failed.fields["outcome"], failed.fields["type"]) == ("timed_out", "TaskTimedOut")
        assert payloads.load(bench.output("t")) == "slow", "not the late one"
        assert counted(orchestrator, "stale_results_total") == 1

    @real
    def test_a_worker_that_says_so_itself(self, bench: Bench) -> None:
        bench.start("t", bench.register(self.definition))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        hand.report_start(held, bench.now_ms())
        steps(orchestrator)
        hand.answer(held, "timed_out")
        steps(orchestrator)
        assert bench.call("ZCARD", bench.part.timers) == 1, "the guard is gone, the backoff is there"
        bench.pass_time(60_000)
        settle(orchestrator, hand)
        check_once(bench.history("t"), "slow")


class TestCancel:
    def test_it_takes_back_what_is_out(self, bench: Bench) -> None:
        definition = Definition(
            "c",
            (
                flows.fork("fork", None, x=1, y=2, z=3),
                flows.task("a", None),
                flows.delay("b", None, 3_600_000),
                flows.wait("c", None),
            ),
        )
        incarnation = bench.start("c", bench.register(definition))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        bench.cancel("c", "no longer wanted")
        steps(orchestrator)
        snapshot = bench.snapshot("c")
        assert (snapshot.status, snapshot.reason) == ("cancelled", "no longer wanted")
        assert not hand.holds(held)
        assert bench.call("ZCARD", bench.part.timers) == 0
        assert bench.call("EXISTS", bench.part.state(incarnation)) == 0
        hand.answer(held)
        settle(orchestrator, hand)
        check_once(bench.history("c"), status="cancelled")
        assert counted(orchestrator, "stale_results_total") == 1

    @real
    def test_before_the_start_was_seen(self, bench: Bench) -> None:
        bench.start("c", bench.register(flows.chain("a")))
        bench.cancel("c")
        orchestrator, hand = bench.orchestrator(), bench.hand()
        settle(orchestrator, hand)
        assert bench.status("c") == "cancelled"
        assert hand.taken == []


@real
def test_an_id_may_be_used_again(bench: Bench) -> None:
    definition = bench.register(flows.chain("a"))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    bench.start("again", definition, 1)
    settle(orchestrator, hand)
    bench.start("again", definition, 2)
    settle(orchestrator, hand)
    check_once(bench.history("again"), "a")
    assert [payloads.load(held.task.value) for held in hand.taken] == [1, 2]
