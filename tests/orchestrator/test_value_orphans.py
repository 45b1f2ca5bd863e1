"""A large value that nobody will read has an end: it is deleted, or its TTL runs. The key-leak check looks at the rest
(`support.leaks.orphans`): whatever these tests leave, an output, a parked event or an inbox names it."""

from __future__ import annotations

from typing import Any

import pytest

from headrace_broker import codec, messages, requests, tasks, values
from headrace_broker.definitions import Definition
from headrace_broker.errors import InstanceExists, InstanceFinished, InstanceNotFound
from headrace_broker.messages import SignalMessage
from headrace_broker.tasks import VALUE_LIFE_MS, Settlement
from headrace_orchestrator import partition as partition_module
from headrace_orchestrator.engine import lifecycle, signals
from headrace_orchestrator.engine.nodes.task import TaskNode

from . import flows
from .bench import Bench, check_once, counted, kinds, settle, steps

pytestmark = pytest.mark.real_only

LARGE = "x" * 100_000
PAYLOAD = codec.encode(LARGE)


def waiting() -> Definition:
    return Definition("s", (flows.wait("go", 1), flows.task("t", None)))


def broken(*_: Any) -> None:
    raise ZeroDivisionError("a bug in the engine")


def check_has_an_end(bench: Bench, incarnation: str) -> None:
    """The only value of the incarnation has a TTL, or a parked event that names it."""
    (key,) = bench.values(incarnation)
    parked = bench.call("LRANGE", bench.part.parked(incarnation), 0, -1)
    if not any(key.encode() in event for event in parked):
        check_runs_out(bench, incarnation)


def check_runs_out(bench: Bench, incarnation: str) -> None:
    """The only value of the incarnation has a TTL."""
    (key,) = bench.values(incarnation)
    assert 0 < bench.call("PTTL", key) <= VALUE_LIFE_MS


class TestResults:
    def test_in_flight_when_the_instance_is_cancelled(self, bench: Bench) -> None:
        fork = flows.fork("fork", 3, x=1, y=2)
        definition = Definition("f", (fork, flows.task("b", None), flows.task("c", None), flows.task("join", None)))
        incarnation = bench.start("c", bench.register(definition))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        first, second = hand.take()
        hand.answer(first, result=LARGE)
        bench.cancel("c")
        hand.answer(second, result=LARGE)
        steps(orchestrator)
        assert len(bench.values(incarnation)) == 1, "the one that was in time"
        assert counted(orchestrator, "stale_results_total") == 1

    def test_of_an_instance_that_failed_meanwhile(self, bench: Bench) -> None:
        fork = flows.fork("fork", 3, x=1, y=2)
        definition = Definition("f", (fork, flows.task("b", None), flows.task("c", None), flows.task("join", None)))
        incarnation = bench.start("c", bench.register(definition))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        first, second = hand.take()
        hand.fail(first)
        steps(orchestrator)
        hand.answer(second, result=LARGE)
        steps(orchestrator)
        assert bench.values(incarnation) == []

    def test_sent_twice_since_the_reply_was_lost(self, bench: Bench) -> None:
        """Each sending names the value anew, so the second copy's end is not the end of the first."""
        incarnation = bench.start("c", bench.register(flows.chain("a", "b")))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        hand.answer(held, result=LARGE)
        hand.answer(held, result=LARGE)
        assert len(bench.values(incarnation)) == 2
        steps(orchestrator)
        (key,) = bench.values(incarnation)
        assert bench.call("PTTL", key) == -1
        settle(orchestrator, hand)
        check_once(bench.history("c"), "a", "b")

    def test_of_a_worker_that_died_after_it_had_written(self, bench: Bench) -> None:
        incarnation = bench.start("c", bench.register(flows.chain("a")))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        hand.write_value(held, PAYLOAD)
        hand.go_idle(held)
        bench.pass_time(11_000)
        settle(orchestrator, hand)
        check_once(bench.history("c"), "a")
        check_runs_out(bench, incarnation)

    def test_that_comes_after_its_lease_was_lost(self, bench: Bench) -> None:
        incarnation = bench.start("c", bench.register(flows.chain("a")))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        hand.go_idle(held)
        bench.pass_time(11_000)
        steps(orchestrator)
        hand.answer(held, result=LARGE)
        settle(orchestrator, hand)
        check_once(bench.history("c"), "a")
        assert bench.values(incarnation) == []

    def test_of_a_router(self, bench: Bench) -> None:
        definition = Definition("r", (flows.route("route", 1, left=1), flows.task("a", None)))
        incarnation = bench.start("c", bench.register(definition))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        stored = hand.write_value(held, PAYLOAD)
        hand.settle(held, hand.result(held, value=stored, route="left"))
        settle(orchestrator, hand)
        check_once(bench.history("c"), "route", "a")
        assert bench.values(incarnation) == [], "only the key counts"

    def test_in_quarantine(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        incarnation = bench.start("c", bench.register(flows.chain("a")))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        monkeypatch.setattr(TaskNode, "on_result", broken)
        hand.work({"a": LARGE})
        steps(orchestrator)
        assert len(bench.quarantine()) == 1
        check_has_an_end(bench, incarnation)

    async def test_about_to_run_out_counts_as_lost(self, bench: Bench) -> None:
        """Else it might be gone between the look and the commit that adopts it."""
        incarnation = bench.start("c", bench.register(flows.chain("a")))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        hand.work({"a": LARGE})
        (key,) = bench.values(incarnation)
        bench.call("PEXPIRE", key, 20_000)
        settle(orchestrator, hand)
        assert [event.fields["cause"] for event in kinds(bench.history("c"), "redelivered")] == ["lost"]
        check_runs_out(bench, incarnation)


class TestSignals:
    def test_beyond_what_may_be_buffered(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(partition_module, "SIGNALS_BUFFERED", 0)
        incarnation = bench.start("s", bench.register(flows.chain("a")))
        bench.signal("s", "go", LARGE)
        steps(bench.orchestrator())
        assert "that is the limit" in bench.quarantine()[0]["reason"]
        check_runs_out(bench, incarnation)

    def test_that_the_engine_fails_on(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        incarnation = bench.start("s", bench.register(waiting()))
        monkeypatch.setattr(signals, "receive", broken)
        bench.signal("s", "go", LARGE)
        steps(bench.orchestrator())
        assert len(bench.quarantine()) == 1
        check_has_an_end(bench, incarnation)

    def test_to_an_instance_that_ends_before_it_is_read(self, bench: Bench) -> None:
        incarnation = bench.start("s", bench.register(waiting()))
        bench.cancel("s")
        bench.signal("s", "go", LARGE)
        steps(bench.orchestrator())
        assert bench.values(incarnation) == []

    def test_for_a_blocked_instance_it_is_kept(self, bench: Bench) -> None:
        definition = waiting()
        incarnation = bench.start("s", bench.register(definition))
        bench.call("DEL", bench.keys.definition(definition.digest))
        bench.signal("s", "go", LARGE)
        steps(bench.orchestrator())
        assert bench.status("s") == "blocked"
        (key,) = bench.values(incarnation)
        assert bench.call("PTTL", key) == -1

    def test_put_back_from_quarantine_too_late(self, bench: Bench) -> None:
        incarnation = bench.start("s", bench.register(waiting()))
        bench.signal("s", "go", LARGE)
        (key,) = bench.values(incarnation)
        bench.call("DEL", key)
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        assert "Its payload is gone" in bench.quarantine()[0]["reason"]
        bench.signal("s", "go", LARGE)
        settle(orchestrator, hand)
        check_once(bench.history("s"), "t")

    def test_refused_ones_leave_nothing(self, bench: Bench) -> None:
        payload = requests.Payload(PAYLOAD)
        with pytest.raises(InstanceNotFound):
            bench.hold(requests.SignalRequest("nobody", "go", payload).hold(bench.namespace))
        incarnation = bench.start("s", bench.register(waiting()))
        bench.cancel("s")
        steps(bench.orchestrator())
        with pytest.raises(InstanceFinished):
            bench.hold(requests.SignalRequest("s", "go", payload).hold(bench.namespace))
        assert bench.values(incarnation) == []

    def test_a_repeated_request_writes_once(self, bench: Bench) -> None:
        incarnation = bench.start("s", bench.register(waiting()))
        request = requests.SignalRequest("s", "go", requests.Payload(PAYLOAD))
        for _ in range(3):
            bench.hold(request.hold(bench.namespace))
        (key,) = bench.values(incarnation)
        settle(bench.orchestrator(), bench.hand())
        assert bench.values(incarnation) == [key]


class TestStarts:
    def start(self, bench: Bench, request: requests.StartRequest) -> str:
        return bench.hold(request.hold(bench.namespace)).incarnation

    def request(self, definition: Definition, **options: Any) -> requests.StartRequest:
        return requests.StartRequest("c", definition.flow, definition.digest, requests.Payload(PAYLOAD), **options)

    def test_repeated_or_refused_ones_write_nothing_more(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a"))
        request = self.request(definition)
        incarnation = self.start(bench, request)
        assert self.start(bench, request) == incarnation
        assert self.start(bench, self.request(definition, conflict="use_existing")) == incarnation
        refused = self.request(definition)
        with pytest.raises(InstanceExists):
            self.start(bench, refused)
        assert len(bench.values(incarnation)) == 1
        assert bench.values(refused.incarnation) == []
        settle(bench.orchestrator(), bench.hand())
        check_once(bench.history("c"), "a")

    def test_of_an_instance_that_was_cancelled_before(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a"))
        incarnation = self.start(bench, self.request(definition))
        bench.cancel("c")
        steps(bench.orchestrator())
        assert bench.status("c") == "cancelled"
        assert bench.values(incarnation) == []

    def test_that_the_engine_fails_on(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        definition = bench.register(flows.chain("a"))
        incarnation = self.start(bench, self.request(definition))
        monkeypatch.setattr(lifecycle, "start", broken)
        steps(bench.orchestrator())
        assert bench.status("c") == "blocked"
        check_has_an_end(bench, incarnation)


def test_a_value_with_no_event_and_an_event_of_nobody(bench: Bench) -> None:
    """By hand, a signal of an incarnation that never was: its value goes with it."""
    key = bench.part.value("nobody", "x")
    message = SignalMessage("nobody", "go", values.reference(key, len(PAYLOAD)))
    commands = tasks.settle(bench.part, [Settlement(None, write=(key, PAYLOAD))])
    tasks.check_settled([*bench.ask(*commands)])
    bench.call("XADD", bench.part.events, "*", "m", messages.pack(message), "inc", "nobody")
    steps(bench.orchestrator())
    assert bench.values("nobody") == []
