"""Leases: what nobody renews is handed out anew, and what came in time is never overtaken by that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from headrace_broker import codec, payloads, values
from headrace_broker.connection import Command

from . import flows
from .bench import LEASE_MS, Bench, Counting, check_once, counted, kinds, settle, steps
from .hand import Hand, Held

pytestmark = pytest.mark.real_only

LEASE = LEASE_MS / 1000


def hand_out(bench: Bench, **options: Any) -> tuple[Counting, Hand, Held]:
    """An instance whose first task is in hand, and an orchestrator that may judge leases."""
    bench.start("c", bench.register(flows.chain("a", "b")))
    orchestrator, hand = bench.orchestrator(**options), bench.hand()
    steps(orchestrator)
    (held,) = hand.take()
    bench.clock.advance(LEASE + 1)
    steps(orchestrator)
    return orchestrator, hand, held


def look_again(bench: Bench, orchestrator: Counting) -> None:
    """Leases are judged now and then; this is then."""
    bench.clock.advance(LEASE)
    steps(orchestrator)


def test_what_is_idle_for_too_long_is_handed_out_anew(bench: Bench) -> None:
    orchestrator, hand, held = hand_out(bench)
    look_again(bench, orchestrator)
    assert hand.holds(held), "a fresh lease is left alone"
    hand.go_idle(held)
    look_again(bench, orchestrator)
    (again,) = hand.take()
    assert again.task.dispatch != held.task.dispatch
    assert (again.task.step, again.task.attempt, again.task.losses) == (held.task.step, 1, 1)
    assert not hand.holds(held)
    key = held.source.key
    assert [row[0].decode() for row in bench.call("XRANGE", key, "-", "+")] == [again.entry]
    assert bench.call("XPENDING", key, "workers")[0] == 1
    (redelivered,) = kinds(bench.history("c"), "redelivered")
    assert (redelivered.fields["cause"], redelivered.fields["losses"]) == ("lost", 1)
    assert counted(orchestrator, "redeliveries_total", cause="lost") == 1
    hand.answer(again)
    settle(orchestrator, hand)
    check_once(bench.history("c"), "a", "b")


def test_the_late_result_of_the_old_delivery_is_refused(bench: Bench) -> None:
    orchestrator, hand, held = hand_out(bench)
    hand.go_idle(held)
    look_again(bench, orchestrator)
    large = hand.write_value(held, codec.encode("x" * 20_000))
    hand.tell(held, hand.result(held, value=large))
    steps(orchestrator)
    assert counted(orchestrator, "stale_results_total") == 1
    assert bench.values(held.task.incarnation) == [], "and its large value is gone"
    assert bench.status("c") == "running"
    settle(orchestrator, hand)
    check_once(bench.history("c"), "a", "b")


def test_after_two_losses_it_runs_alone_and_after_five_more_it_fails(bench: Bench) -> None:
    orchestrator, hand, held = hand_out(bench)
    seen: list[bool] = []
    for _ in range(7):
        seen.append(held.task.alone)
        hand.go_idle(held)
        look_again(bench, orchestrator)
        found = hand.take()
        if found:
            (held,) = found
    assert seen == [False, False, True, True, True, True, True]
    snapshot = bench.snapshot("c")
    assert snapshot.status == "failed"
    assert snapshot.error is not None
    assert snapshot.error.type == "WorkerLost"


class TestContact:
    def test_nothing_is_judged_before_a_whole_lease_of_it(self, bench: Bench) -> None:
        bench.start("c", bench.register(flows.chain("a")))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        hand.go_idle(held)
        bench.clock.advance(LEASE - 1)
        steps(orchestrator)
        assert hand.holds(held)
        bench.clock.advance(2)
        steps(orchestrator)
        assert not hand.holds(held)

    def test_a_reconnect_begins_it_anew(self, bench: Bench) -> None:
        orchestrator, hand, held = hand_out(bench)
        orchestrator.disconnect()
        bench.clock.advance(20)
        steps(orchestrator)
        assert orchestrator.owned == [0]
        hand.go_idle(held)
        bench.clock.advance(LEASE - 1)
        steps(orchestrator)
        assert hand.holds(held)
        bench.clock.advance(2)
        steps(orchestrator)
        assert not hand.holds(held)

    def test_a_pause_of_the_server_begins_it_anew(self, bench: Bench) -> None:
        """Every entry looks idle after it, though the keepers would have renewed them."""
        orchestrator, hand, held = hand_out(bench)
        hand.go_idle(held)

        def pause(commands: Sequence[Command]) -> None:
            if any(command[0] == "XPENDING" for command in commands):
                bench.tap.before = None
                bench.clock.advance(LEASE / 2)

        bench.tap.before = pause
        look_again(bench, orchestrator)
        assert bench.tap.before is None, "the read that judges took half a lease"
        assert hand.holds(held), "so it may not judge"
        bench.clock.advance(LEASE - 1)
        steps(orchestrator)
        assert hand.holds(held)
        bench.clock.advance(2)
        steps(orchestrator)
        assert not hand.holds(held)

    @pytest.mark.parametrize("during", ["XREAD", "EXEC"])
    def test_a_pause_in_a_blocking_read_or_a_commit_counts_too(self, bench: Bench, during: str) -> None:
        orchestrator, hand, held = hand_out(bench)
        bench.start("other", bench.register(flows.chain("a")))

        def pause(command: Command, reply: Any) -> Any:
            if command[0] == during and (during == "EXEC" or "BLOCK" in command):
                bench.tap.after = None
                bench.clock.advance(LEASE / 2)
            return reply

        bench.tap.after = pause
        steps(orchestrator)
        if during == "XREAD":
            orchestrator.step(20)
        assert bench.tap.after is None
        hand.go_idle(held)
        bench.clock.advance(LEASE - 1)
        steps(orchestrator)
        assert hand.holds(held)
        bench.clock.advance(2)
        steps(orchestrator)
        assert not hand.holds(held)


class TestAResultInTime:
    def test_one_that_is_there_already_wins(self, bench: Bench) -> None:
        """A worker without its lease may not acknowledge, but what it tells first counts first."""
        orchestrator, hand, held = hand_out(bench)
        hand.go_idle(held)
        hand.tell(held, hand.result(held, value=values.inline(codec.encode("first"))))
        look_again(bench, orchestrator)
        (next_one,) = hand.take()
        assert next_one.node == "b"
        assert payloads.load(next_one.task.value) == "first"
        hand.answer(next_one)
        settle(orchestrator, hand)
        check_once(bench.history("c"), "a", "b")
        assert kinds(bench.history("c"), "redelivered") == []
        assert bench.call("XLEN", held.source.key) == 0

    @pytest.mark.parametrize("moment", ["XREAD", "XRANGE"])
    def test_one_that_comes_while_the_lease_is_judged(self, bench: Bench, moment: str) -> None:
        """After XPENDING has named the entry: it is gone when it is read. That is no garbage."""
        orchestrator, hand, held = hand_out(bench)
        hand.go_idle(held)

        def settle_now(command: Command, reply: Any) -> Any:
            if command[0] == "XPENDING":
                bench.tap.after = None
                if moment == "XRANGE":
                    hand.answer(held)
            return reply

        def settle_before(commands: Sequence[Command]) -> None:
            if moment == "XREAD" and any(command[0] == "XRANGE" for command in commands):
                bench.tap.before = None
                hand.answer(held)

        bench.tap.after = settle_now
        bench.tap.before = settle_before
        look_again(bench, orchestrator)
        settle(orchestrator, hand)
        check_once(bench.history("c"), "a", "b")
        assert kinds(bench.history("c"), "redelivered") == []
        assert bench.quarantine() == []
        assert counted(orchestrator, "stale_results_total") == 0

    def test_a_full_read_puts_judging_off(self, bench: Bench) -> None:
        """Only when the whole inbox is known may a lease be called lost."""
        orchestrator, hand, held = hand_out(bench, batch=4)
        for n in range(12):
            bench.call("XADD", bench.part.events, "*", "junk", n)
        hand.tell(held, hand.result(held, value=values.inline(codec.encode(1))))
        hand.go_idle(held)
        look_again(bench, orchestrator)
        settle(orchestrator, hand)
        assert kinds(bench.history("c"), "redelivered") == []
        assert len(bench.quarantine()) == 12


def test_an_entry_that_is_pending_but_deleted_is_cleared_away(bench: Bench) -> None:
    """XDEL without XACK by a strange hand: the token waits for it for ever unless its time-out helps; no noise."""
    orchestrator, hand, held = hand_out(bench)
    hand.go_idle(held)
    bench.call("XDEL", held.source.key, held.entry)
    look_again(bench, orchestrator)
    assert bench.call("XPENDING", held.source.key, "workers")[0] == 0
    assert bench.quarantine() == []
    assert orchestrator.owned == [0]


def test_a_great_loss_is_worked_off_at_once(bench: Bench) -> None:
    """A page of losses is judged in a turn, and the next page in the turn after it."""
    definition = bench.register(flows.chain("a"))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    for n in range(300):
        bench.start(f"c{n}", definition)
    steps(orchestrator)
    taken = hand.take(512)
    assert len(taken) == 300
    for held in taken:
        hand.go_idle(held)
    bench.clock.advance(LEASE + 1)
    steps(orchestrator)
    assert len(hand.take(512)) == 300
    assert counted(orchestrator, "redeliveries_total", cause="lost") == 300


def test_judging_is_done_three_times_a_lease_not_at_every_turn(bench: Bench) -> None:
    orchestrator, hand, held = hand_out(bench)
    bench.tap.sent.clear()
    for _ in range(30):
        orchestrator.step(0)
        bench.clock.advance(0.2)
    assert 1 <= bench.tap.names().count("XPENDING") <= 3
    hand.answer(held)
    settle(orchestrator, hand)
