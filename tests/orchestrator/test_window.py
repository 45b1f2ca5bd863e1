"""Work in progress comes before new work, and nothing blocks for ever (DESIGN 5)."""

from __future__ import annotations

import pytest

from headrace_orchestrator.window import StartWindow

from . import flows
from .bench import Bench, check_once, settle, steps

pytestmark = pytest.mark.real_only


def queued(bench: Bench) -> int:
    count: int = bench.call("ZCARD", bench.part.by_status("queued"))
    return count


def start(bench: Bench, count: int, flow: str = "chain", **call: str) -> None:
    definition = bench.register(flows.chain("a", flow=flow, **call))
    for n in range(count):
        bench.start(f"{flow}{n}", definition)


class TestTheWindow:
    def test_starts_wait_while_a_live_workers_stream_is_over_it(self, bench: Bench) -> None:
        bench.clock.stop()
        bench.announce("default")
        hand = bench.hand()
        start(bench, 60)
        orchestrator = bench.orchestrator(window=20, starts_per_second=16)
        steps(orchestrator)
        assert bench.call("XLEN", bench.part.tasks("default")) in range(20, 41)
        before = queued(bench)
        assert before >= 20
        steps(orchestrator)
        assert queued(bench) == before
        hand.work()
        bench.clock.advance(2)  # the streams' lengths are asked for now and then
        steps(orchestrator)
        assert queued(bench) < before
        for _ in range(10):
            bench.clock.advance(2)
            settle(orchestrator, hand)
        assert queued(bench) == 0
        for n in range(60):
            check_once(bench.history(f"chain{n}"), "a")

    def test_sixteen_a_second_whatever_the_backlog(self, bench: Bench) -> None:
        bench.clock.stop()
        bench.announce("default")
        bench.hand()
        start(bench, 80)
        orchestrator = bench.orchestrator(window=1, starts_per_second=16)
        steps(orchestrator)
        before = queued(bench)
        for _ in range(10):
            bench.clock.advance(0.125)
            steps(orchestrator)
        assert before - queued(bench) == 20

    def test_streams_without_a_live_worker_do_not_count(self, bench: Bench) -> None:
        bench.announce("other")
        start(bench, 60)
        steps(bench.orchestrator(window=20))
        assert queued(bench) == 0

    def test_results_make_room_at_once(self, bench: Bench) -> None:
        """Not only when the streams are measured again: a window's worth a second is not what a fast worker can do."""
        bench.clock.stop()
        bench.announce("default")
        hand = bench.hand()
        start(bench, 120)
        orchestrator = bench.orchestrator(window=20, starts_per_second=1)
        settle(orchestrator, hand)
        assert queued(bench) == 0
        for n in range(120):
            check_once(bench.history(f"chain{n}"), "a")

    def test_events_go_on_while_starts_wait(self, bench: Bench) -> None:
        bench.announce("default")
        hand = bench.hand()
        start(bench, 40)
        orchestrator = bench.orchestrator(window=4, starts_per_second=1)
        steps(orchestrator)
        running = hand.take()
        bench.cancel(running[0].task.instance)
        steps(orchestrator)
        assert bench.status(running[0].task.instance) == "cancelled"


class TestTheArithmetic:
    def test_the_fullest_live_stream_decides(self) -> None:
        window = StartWindow(10, 0)
        window.measured({"a": 3, "b": 8, "c": 50}, {"a", "b"})
        assert window.room(0.0, 512) == 2
        window.dispatched("b")
        window.dispatched("b")
        window.dispatched("b")
        assert window.room(0.0, 512) == 0
        window.settled("b")
        window.settled("b")
        assert window.room(0.0, 512) == 1
        assert window.room(0.0, 0) == 0

    def test_the_allowance_is_no_more_than_a_seconds(self) -> None:
        window = StartWindow(0, 16)
        assert window.room(0.0, 512) == 16
        window.took(16)
        assert window.room(0.0, 512) == 0
        assert window.room(0.25, 512) == 4
        assert window.room(100.0, 512) == 16
