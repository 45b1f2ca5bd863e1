"""Blocked instances go on: where they stopped, in order, bounded, however often it is tried (ADR 4)."""

from __future__ import annotations

from typing import Any

import pytest

from headrace_broker import codec, messages, registry, wire
from headrace_broker.definitions import Definition
from headrace_broker.errors import InstanceNotBlocked
from headrace_broker.messages import ContinueMessage, UnblockMessage
from headrace_broker.snapshots import Snapshot
from headrace_orchestrator import parking, unparking
from headrace_orchestrator.engine import apply as engine
from headrace_orchestrator.orchestrator import Orchestrator

from . import flows
from .bench import Bench, Counting, check_once, kinds, settle, steps
from .hand import Hand
from .poison import Poisoned

pytestmark = pytest.mark.real_only


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Poisoned:
    return Poisoned(monkeypatch, "poison")


def waits(count: int, *, last: str = "t") -> Definition:
    """Waits for the signal `go` so many times, then a task."""
    nodes = [flows.wait("go", number + 1) for number in range(count)]
    named = [node.__class__(node.kind, f"go{number}", node.next, node.params) for number, node in enumerate(nodes)]
    return Definition("waits", (*named, flows.task(last, None)))


def parked(bench: Bench, incarnation: str) -> list[Any]:
    return [wire.unpack(row) for row in bench.call("LRANGE", bench.part.parked(incarnation), 0, -1)]


def trace(bench: Bench, id: str) -> list[str]:
    """What blocked and unblocked it, in order."""
    return [event.kind for event in bench.history(id) if event.kind in ("blocked", "unblocked")]


class Stopped:
    """An instance of `poison` then `b`, blocked by the result of `poison`."""

    def __init__(self, bench: Bench, id: str = "bad") -> None:
        self.bench = bench
        self.incarnation = bench.start(id, bench.register(flows.chain("poison", "b", flow="bad")))
        self.orchestrator = bench.orchestrator()
        self.hand = bench.hand()
        steps(self.orchestrator)
        assert self.hand.work(results={"poison": "saved"}) == 1
        steps(self.orchestrator)
        assert bench.status(id) == "blocked"


@pytest.fixture
def stopped(bench: Bench, poison: Poisoned) -> Stopped:
    return Stopped(bench)


class TestAMendedBug:
    def test_the_guilty_event_is_applied(self, bench: Bench, poison: Poisoned, stopped: Stopped) -> None:
        snapshot = bench.snapshot("bad")
        assert (snapshot.parked, snapshot.guilty) == (1, True)
        assert bench.quarantine()[0]["parked"] == "1"
        poison.fails = False
        bench.unblock("bad", actor="ann")
        settle(stopped.orchestrator, stopped.hand)
        assert codec.decode(stopped.hand.taken[-1].task.value[1:]) == "saved", "nothing was done twice"
        assert [held.node for held in stopped.hand.taken] == ["poison", "b"]
        assert trace(bench, "bad") == ["blocked", "unblocked"]
        (unblocked,) = kinds(bench.history("bad"), "unblocked")
        assert unblocked.fields == {"actor": "ann", "parked": 1, "skipped": 0}
        snapshot = bench.snapshot("bad")
        assert (snapshot.status, snapshot.parked, snapshot.guilty, snapshot.reason) == ("completed", 0, False, None)
        assert bench.call("EXISTS", bench.part.parked(stopped.incarnation)) == 0
        assert completions(bench) == ["poison", "b"]

    def test_by_an_orchestrator_that_knows_nothing_of_it(
        self, bench: Bench, poison: Poisoned, stopped: Stopped
    ) -> None:
        stopped.orchestrator.close()
        poison.fails = False
        bench.unblock("bad")
        settle(bench.orchestrator(2), stopped.hand)
        assert completions(bench) == ["poison", "b"]

    def test_one_that_is_not_mended_blocks_again(self, bench: Bench, poison: Poisoned, stopped: Stopped) -> None:
        for _ in range(2):
            bench.unblock("bad")
            settle(stopped.orchestrator, stopped.hand)
            snapshot = bench.snapshot("bad")
            assert (snapshot.status, snapshot.parked, snapshot.guilty) == ("blocked", 1, True)
            assert snapshot.reason == "ZeroDivisionError: a bug in the engine"
        assert trace(bench, "bad") == ["blocked", "unblocked", "blocked", "unblocked", "blocked"]
        assert len(bench.quarantine()) == 1, "it is the same event"
        poison.fails = False
        bench.unblock("bad")
        settle(stopped.orchestrator, stopped.hand)
        assert completions(bench) == ["poison", "b"]

    def test_skip_leaves_the_guilty_event_out(self, bench: Bench, poison: Poisoned, stopped: Stopped) -> None:
        bench.unblock("bad", skip=True)
        settle(stopped.orchestrator, stopped.hand)
        snapshot = bench.snapshot("bad")
        assert (snapshot.status, snapshot.parked, snapshot.guilty) == ("running", 0, False)
        assert kinds(bench.history("bad"), "unblocked")[0].fields["skipped"] == 1
        bench.cancel("bad")
        settle(stopped.orchestrator, stopped.hand)
        assert bench.status("bad") == "cancelled"

    def test_skip_when_the_next_is_guilty_too(self, bench: Bench, poison: Poisoned) -> None:
        fork = flows.fork("fork", None, x=1, y=2)
        nodes = (fork, flows.task("poison", None), flows.task("poison", None))
        incarnation = bench.start("bad", bench.register(Definition("bad", nodes)))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        assert hand.work() == 2
        steps(orchestrator)
        second = parked(bench, incarnation)[1]
        bench.unblock("bad", skip=True)
        steps(orchestrator)
        assert parked(bench, incarnation) == [second]
        snapshot = bench.snapshot("bad")
        assert (snapshot.status, snapshot.parked, snapshot.guilty) == ("blocked", 1, True)
        assert [entry["parked"] for entry in bench.quarantine()] == ["1", "1"]
        poison.fails = False
        bench.unblock("bad")
        steps(orchestrator)
        assert (bench.snapshot("bad").status, bench.snapshot("bad").parked) == ("running", 0)
        assert len(completions(bench)) == 1, "the first was left out"

    def test_a_timer_and_a_start_that_failed(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(self: object, *_: object) -> None:
            raise ZeroDivisionError("a bug in the engine")

        bench.start("d", bench.register(Definition("d", (flows.delay("sleep", 1, 60_000), flows.task("t", None)))))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        with monkeypatch.context() as broken:
            broken.setattr("headrace_orchestrator.engine.nodes.delay.Delay.on_timer", fail)
            broken.setattr("headrace_orchestrator.engine.nodes.task.TaskNode.enter", fail)
            bench.start("c", bench.register(flows.chain("a")))
            bench.pass_time(60_000)
            steps(orchestrator)
            assert (bench.status("c"), bench.status("d")) == ("blocked", "blocked")
        bench.unblock("c")
        bench.unblock("d")
        settle(orchestrator, hand)
        check_once([event for event in bench.history("c") if "blocked" not in event.kind], "a")
        check_once([event for event in bench.history("d") if "blocked" not in event.kind], "t")

    def test_a_lost_delivery_is_handed_out_anew(self, bench: Bench, poison: Poisoned) -> None:
        fork = flows.fork("fork", None, x=1, y=2)
        bench.start("bad", bench.register(Definition("bad", (fork, flows.task("poison", None), flows.task("b", None)))))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        first, second = sorted(hand.take(), key=lambda held: held.node == "b")
        hand.answer(first)
        steps(orchestrator)
        hand.go_idle(second)
        bench.clock.advance(11)
        steps(orchestrator)
        assert bench.snapshot("bad").parked == 2
        assert bench.call("XLEN", second.source.key) == 0
        poison.fails = False
        bench.unblock("bad")
        settle(orchestrator, hand)
        assert [held.node for held in hand.taken[2:]] == ["b"]
        assert bench.status("bad") == "completed"


def completions(bench: Bench, id: str = "bad") -> list[str | None]:
    return [event.node for event in kinds(bench.history(id), "completed")]


class TestManyParked:
    def test_they_go_on_in_order_over_several_commits(
        self, bench: Bench, poison: Poisoned, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(unparking, "_IN_ALL", 10)
        fork = flows.fork("fork", None, x=1, y=2)
        waiting = waits(40).nodes
        shifted = tuple(
            node.__class__(node.kind, node.name, node.next and node.next + 2, node.params) for node in waiting
        )
        nodes = (fork, flows.task("poison", None), *shifted)
        incarnation = bench.start("bad", bench.register(Definition("bad", nodes)))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        hand.work()
        steps(orchestrator)
        for number in range(40):
            bench.raw_signal("bad", "go", str(number))
        steps(orchestrator)
        assert bench.snapshot("bad").parked == 41
        poison.fails = False
        bench.tap.sent.clear()
        bench.unblock("bad")
        orchestrator.step(0)
        assert bench.status("bad") == "blocked", "what comes now goes behind what waits"
        assert bench.snapshot("bad").parked == 31
        bench.raw_signal("bad", "go", "40")
        settle(orchestrator, hand)
        trims = [command[2] for command in bench.tap.sent if command[0] == "LTRIM"]
        assert trims[:4] == [10, 10, 10, 10]
        taken = kinds(bench.history("bad"), "signal_taken")
        assert [event.node for event in taken] == [f"go{number}" for number in range(40)]
        assert bench.slot("bad", "g39.go") == b"j39"
        assert bench.slot("bad", "g40.go") == b"j40", "it came last"
        assert trace(bench, "bad") == ["blocked", "unblocked"]
        assert bench.status("bad") == "completed"
        assert bench.call("EXISTS", bench.part.parked(incarnation)) == 0

    def test_the_guilty_one_among_them_is_found(
        self, bench: Bench, poison: Poisoned, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What stands before it is applied, it becomes the first, what stands behind it stays."""
        definition = Definition("m", (flows.wait("go", 1), flows.task("poison", None)))
        stopped_by = bench.start("bad", definition)
        orchestrator, hand = bench.orchestrator(), bench.hand()
        settle(orchestrator, hand)
        for number in range(6):
            bench.signal("bad", "other" if number else "go", number)
        settle(orchestrator, hand)
        assert bench.snapshot("bad").parked == 7

        real = engine.apply
        seen: list[Any] = []

        def fail_once(draft: Any, program: Any, event: Any, context: Any) -> None:
            if isinstance(event, messages.SignalMessage) and codec.decode(event.value[1:]) == 3:
                seen.append(event)
                raise ZeroDivisionError("the third")
            real(draft, program, event, context)

        with monkeypatch.context() as broken:
            broken.setattr("headrace_orchestrator.partition.engine.apply", fail_once)
            bench.register(definition)
            bench.unblock("bad")
            settle(orchestrator, hand)
            snapshot = bench.snapshot("bad")
            assert (snapshot.status, snapshot.reason) == ("blocked", "ZeroDivisionError: the third")
            assert (snapshot.parked, snapshot.guilty) == (4, True), "three and what came from the task"
            assert seen
            assert [entry["parked"] for entry in bench.quarantine()] == ["1"]
        rows = parked(bench, stopped_by)
        first = messages.expect(messages.unpack(rows[0][2][b"m"]), messages.SignalMessage)
        assert codec.decode(first.value[1:]) == 3
        bench.unblock("bad", skip=True)
        poison.fails = False
        settle(orchestrator, hand)
        assert bench.status("bad") == "completed"
        received = kinds(bench.history("bad"), "signal_received")
        assert len(received) == 5

    def test_signals_beyond_the_limit_are_quarantined(
        self, bench: Bench, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parking, "PARKED_LIMIT", 3)
        for number in range(4):
            bench.raw_signal("bad", "s", str(number))
        settle(stopped.orchestrator, stopped.hand)
        assert bench.snapshot("bad").parked == 3
        refused = [entry["reason"] for entry in bench.quarantine() if entry["source"] == "signals"]
        assert len(refused) == 2
        assert "that is the limit" in refused[0]

    def test_what_was_parked_in_the_same_batch_comes_last(
        self, bench: Bench, poison: Poisoned, stopped: Stopped
    ) -> None:
        poison.fails = False
        bench.signal("bad", "s", 1)
        bench.unblock("bad")
        bench.signal("bad", "s", 2)
        settle(stopped.orchestrator, stopped.hand)
        assert bench.slot("bad", "g0.s")[1:] == codec.encode(1)
        assert bench.slot("bad", "g1.s")[1:] == codec.encode(2)
        assert bench.status("bad") == "completed"

    def test_an_end_among_them_drops_the_rest(self, bench: Bench, poison: Poisoned, stopped: Stopped) -> None:
        """A failure, after which nothing counts."""
        stopped.bench.signal("bad", "s", 1)
        steps(stopped.orchestrator)
        row = wire.pack(["events", "1-1", {b"m": messages.pack(messages.CancelMessage("bad")), b"inc": b"x"}])
        cancel = row.replace(b"\xc4\x01x", b"\xc4" + bytes([len(stopped.incarnation)]) + stopped.incarnation.encode())
        bench.call("LPUSH", bench.part.parked(stopped.incarnation), cancel)
        poison.fails = False
        bench.unblock("bad")
        settle(stopped.orchestrator, stopped.hand)
        assert bench.status("bad") == "cancelled"
        assert bench.call("EXISTS", bench.part.parked(stopped.incarnation)) == 0
        assert bench.call("EXISTS", bench.part.missing) == 0


class TestGarbageAmongWhatIsParked:
    @pytest.mark.parametrize(
        "row",
        [
            b"rubbish",
            wire.pack([]),
            wire.pack(["events", "1-1", {"m": "text"}]),
            wire.pack(["events", "1-1", {b"m": b"rubbish"}]),
            wire.pack(["nowhere", "1-1", {b"m": b"x"}]),
            wire.pack(["timers", "", {b"m": b"x"}]),
            wire.pack(["leases", "1-1", {b"m": b"x"}]),
            wire.pack(["starts", "1-1", {b"m": messages.pack(messages.CancelMessage("bad"))}]),
            wire.pack(["events", "1-1", {b"m": messages.pack(messages.CancelMessage("good")), b"inc": b"x"}]),
        ],
        ids=range(9),
    )
    def test_it_is_quarantined_and_the_rest_goes_on(
        self, bench: Bench, poison: Poisoned, stopped: Stopped, row: bytes
    ) -> None:
        bench.call("LPUSH", bench.part.parked(stopped.incarnation), row)
        poison.fails = False
        bench.unblock("bad")
        settle(stopped.orchestrator, stopped.hand)
        assert completions(bench) == ["poison", "b"]
        assert len(bench.quarantine()) == 2
        assert bench.quarantine()[1]["reason"]

    def test_a_list_that_is_none_blocks_again(self, bench: Bench, poison: Poisoned, stopped: Stopped) -> None:
        bench.call("DEL", bench.part.parked(stopped.incarnation))
        bench.call("SET", bench.part.parked(stopped.incarnation), "rubbish")
        poison.fails = False
        bench.unblock("bad")
        steps(stopped.orchestrator)
        snapshot = bench.snapshot("bad")
        assert snapshot.status == "blocked"
        assert "cannot be read" in str(snapshot.reason)
        assert stopped.orchestrator.owned == [0]


class TestAMissingDefinition:
    def test_it_goes_on_when_that_appears(self, bench: Bench) -> None:
        definition = flows.chain("a", flow="late")
        orchestrator, hand = bench.orchestrator(), bench.hand()
        for number in range(3):
            bench.start(f"c{number}", definition)
        bench.start("other", flows.chain("x", flow="never"))
        settle(orchestrator, hand)
        assert bench.status("c0") == "blocked"
        assert bench.call("ZCARD", bench.part.missing) == 4
        bench.hold(registry.store_flow(bench.keys, definition))
        bench.clock.advance(1.1)
        settle(orchestrator, hand)
        for number in range(3):
            assert bench.status(f"c{number}") == "completed"
            assert kinds(bench.history(f"c{number}"), "unblocked")[0].fields["actor"] == "definition stored"
        assert bench.status("other") == "blocked"
        assert bench.call("ZCARD", bench.part.missing) == 1

    def test_one_that_is_stored_and_cannot_be_read_does_not_wake_it(self, bench: Bench) -> None:
        definition = flows.chain("a")
        bench.call("SET", bench.keys.definition(definition.digest), "rubbish")
        bench.start("c", definition)
        orchestrator, hand = bench.orchestrator(), bench.hand()
        settle(orchestrator, hand)
        bench.clock.advance(1.1)
        settle(orchestrator, hand)
        assert trace(bench, "c") == ["blocked"]
        bench.call("SET", bench.keys.definition(definition.digest), definition.wire)
        bench.clock.advance(1.1)
        settle(orchestrator, hand)
        assert bench.status("c") == "completed"

    def test_who_does_not_wait_any_more_is_forgotten(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a"))
        bench.call("ZADD", bench.part.missing, 0, f"{definition.digest} inc gone", 0, "rubbish")
        orchestrator = bench.orchestrator()
        steps(orchestrator)
        bench.clock.advance(1.1)
        steps(orchestrator)
        assert bench.call("ZRANGE", bench.part.missing, 0, -1) == [b"rubbish"]

    def test_unblocked_by_hand_it_is_blocked_again_with_the_reason(self, bench: Bench) -> None:
        definition = flows.chain("a")
        bench.start("c", definition)
        orchestrator, hand = bench.orchestrator(), bench.hand()
        settle(orchestrator, hand)
        bench.unblock("c", skip=True)
        settle(orchestrator, hand)
        snapshot = bench.snapshot("c")
        assert (snapshot.status, snapshot.parked) == ("blocked", 1), "the start is not what blocked it, and stays"
        assert definition.digest in str(snapshot.reason)
        assert bench.call("ZCARD", bench.part.missing) == 1


class TestDamagedRecords:
    @pytest.fixture
    def damaged(self, bench: Bench) -> tuple[Counting, Hand, str]:
        incarnation = bench.start("bad", bench.register(flows.chain("a", "b")))
        hand = bench.hand()
        first = bench.orchestrator(1)
        steps(first)
        first.close()
        key = bench.part.state(incarnation)
        saved = bench.call("HGET", key, "t1")
        bench.call("HSET", key, "t1", "rubbish")
        hand.work()
        second = bench.orchestrator(2)
        settle(second, hand)
        assert bench.status("bad") == "blocked"
        self.saved = saved
        return second, hand, incarnation

    def test_still_unreadable_it_is_blocked_again(self, bench: Bench, damaged: tuple[Counting, Hand, str]) -> None:
        orchestrator, hand, _ = damaged
        bench.unblock("bad")
        settle(orchestrator, hand)
        snapshot: Snapshot = bench.snapshot("bad")
        assert (snapshot.status, snapshot.parked) == ("blocked", 1)
        assert trace(bench, "bad") == ["blocked", "unblocked", "blocked"]

    def test_mended_it_goes_on(self, bench: Bench, damaged: tuple[Counting, Hand, str]) -> None:
        orchestrator, hand, incarnation = damaged
        bench.call("HSET", bench.part.state(incarnation), "t1", self.saved)
        bench.unblock("bad")
        settle(orchestrator, hand)
        assert completions(bench) == ["a", "b"]

    def test_it_can_be_cancelled(self, bench: Bench, damaged: tuple[Counting, Hand, str]) -> None:
        orchestrator, hand, incarnation = damaged
        bench.cancel("bad")
        settle(orchestrator, hand)
        assert bench.status("bad") == "cancelled"
        assert bench.call("EXISTS", bench.part.parked(incarnation), bench.part.state(incarnation)) == 0


class TestCancel:
    def test_it_takes_back_what_runs(self, bench: Bench, poison: Poisoned) -> None:
        fork = flows.fork("fork", None, x=1, y=2, z=3)
        nodes = (fork, flows.task("poison", None), flows.task("b", None), flows.delay("sleep", None, 60_000))
        incarnation = bench.start("bad", bench.register(Definition("bad", nodes)))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        first, second = sorted(hand.take(), key=lambda held: held.node == "b")
        hand.answer(first)
        steps(orchestrator)
        bench.clock.advance(1.1)  # a survey tells which streams there are
        steps(orchestrator)
        bench.cancel("bad", "give it up")
        steps(orchestrator)
        assert bench.status("bad") == "cancelled"
        assert not hand.holds(second)
        assert bench.call("XLEN", second.source.key) == 0
        assert bench.call("EXISTS", bench.part.timers, bench.part.parked(incarnation)) == 0
        hand.tell(second, hand.result(second, value=b"m\x01"))
        steps(orchestrator)
        assert bench.status("bad") == "cancelled"

    def test_one_whose_definition_is_missing(self, bench: Bench) -> None:
        bench.start("x", flows.chain("a"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        settle(orchestrator, hand)
        bench.cancel("x")
        settle(orchestrator, hand)
        assert bench.status("x") == "cancelled"
        assert bench.call("EXISTS", bench.part.missing) == 0


class TestStray:
    """Messages that come late, twice, or from nobody."""

    def test_what_is_not_blocked_is_not_touched(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a"))
        incarnation = bench.start("c", definition)
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        for message in (UnblockMessage("c"), ContinueMessage("c", incarnation, "unpark")):
            bench.call("XADD", bench.part.events, "*", "m", messages.pack(message), "inc", incarnation)
        bench.call("XADD", bench.part.events, "*", "m", messages.pack(ContinueMessage("c", "old", "unpark")))
        settle(orchestrator, hand)
        check_once(bench.history("c"), "a")

    def test_twice_in_one_batch(self, bench: Bench, poison: Poisoned, stopped: Stopped) -> None:
        poison.fails = False
        bench.unblock("bad")
        bench.unblock("bad")
        settle(stopped.orchestrator, stopped.hand)
        assert completions(bench) == ["poison", "b"]

    def test_the_client_is_told(self, bench: Bench) -> None:
        bench.start("c", bench.register(flows.chain("a")))
        with pytest.raises(InstanceNotBlocked, match="is not blocked, it is queued"):
            bench.unblock("c")


def test_a_crash_between_two_parts_goes_on(bench: Bench, poison: Poisoned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unparking, "_IN_ALL", 1)
    stopped = Stopped(bench)
    for number in range(5):
        bench.signal("bad", "s", number)
    steps(stopped.orchestrator)
    poison.fails = False
    bench.unblock("bad")
    stopped.orchestrator.step(0)
    assert bench.status("bad") == "blocked"
    crash(stopped.orchestrator)
    bench.call("DEL", bench.part.owner)
    settle(bench.orchestrator(2), stopped.hand)
    assert bench.status("bad") == "completed"
    assert [bench.slot("bad", f"g{n}.s")[1:] for n in range(5)] == [codec.encode(n) for n in range(5)]


def crash(orchestrator: Orchestrator) -> None:
    orchestrator.disconnect()
