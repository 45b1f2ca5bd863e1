"""Instances that are blocked: by a bug in the engine, damaged records, a missing definition. Nobody else is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace_broker import codec, messages, values, wire
from headrace_broker.definitions import Definition
from headrace_broker.messages import ResultMessage
from headrace_orchestrator.engine.nodes.task import TaskNode

from . import flows
from .bench import Bench, check_once, counted, kinds, settle, steps
from .poison import Poisoned

pytestmark = pytest.mark.real_only


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Poisoned:
    return Poisoned(monkeypatch, "poison")


class TestABugInTheEngine:
    def test_it_blocks_one_instance_and_no_other(self, bench: Bench, poison: Poisoned) -> None:
        good = bench.register(flows.chain("a", "b", flow="good"))
        bad = bench.register(flows.chain("poison", "b", flow="bad"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        for n in range(4):
            bench.start(f"good{n}", good)
        bench.start("bad", bad)
        for n in range(4, 8):
            bench.start(f"good{n}", good)
        steps(orchestrator)
        assert hand.work() == 9, "all results lie in one batch"
        settle(orchestrator, hand)
        for n in range(8):
            check_once(bench.history(f"good{n}"), "a", "b")
        snapshot = bench.snapshot("bad")
        assert snapshot.status == "blocked"
        assert snapshot.reason == "ZeroDivisionError: a bug in the engine"
        (found,) = bench.quarantine()
        assert (found["source"], found["instance"]) == ("events", "bad")
        assert found["reason"] == "ZeroDivisionError: a bug in the engine"
        assert messages.unpack(bench.call("XRANGE", bench.part.quarantine, "-", "+")[0][1][-1])
        assert [event.fields["reason"] for event in kinds(bench.history("bad"), "blocked")] == [snapshot.reason]
        assert counted(orchestrator, "quarantined_total") == 1

    def test_what_comes_for_it_is_parked_in_order(self, bench: Bench, poison: Poisoned) -> None:
        definition = Definition(
            "bad",
            (
                flows.fork("fork", None, x=1, y=2, z=3),
                flows.task("poison", None),
                flows.task("b", None),
                flows.delay("sleep", None, 60_000),
            ),
        )
        incarnation = bench.start("bad", bench.register(definition))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        first, second = sorted(hand.take(), key=lambda held: held.node == "b")
        hand.answer(first)
        steps(orchestrator)
        bench.signal("bad", "s1", 1)
        hand.answer(second)
        steps(orchestrator)
        bench.raw_signal("bad", "s2", "2")
        steps(orchestrator)
        bench.pass_time(60_000)
        steps(orchestrator)
        parked = [wire.unpack(row) for row in bench.call("LRANGE", bench.part.parked(incarnation), 0, -1)]
        assert [row[0] for row in parked] == ["events", "events", "events", "signals", "timers"]
        unpacked = [messages.unpack(row[2][b"m"]) for row in parked if row[0] == "events"]
        assert [type(message).__name__ for message in unpacked] == ["ResultMessage", "SignalMessage", "ResultMessage"]
        assert bench.status("bad") == "blocked"
        assert bench.call("EXISTS", bench.part.timers) == 0

    def test_a_failing_timer(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(self: object, *_: object) -> None:
            raise ZeroDivisionError("a bug in the engine")

        bench.start("d", bench.register(Definition("d", (flows.delay("sleep", None, 60_000),))))
        orchestrator = bench.orchestrator()
        steps(orchestrator)
        monkeypatch.setattr("headrace_orchestrator.engine.nodes.delay.Delay.on_timer", fail)
        bench.pass_time(60_000)
        steps(orchestrator)
        assert bench.status("d") == "blocked"
        (found,) = bench.quarantine()
        assert found["source"] == "timers"
        assert "raw:timer" in found, "the quarantine says which timer"

    def test_a_failing_start(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(self: object, *_: object) -> None:
            raise ZeroDivisionError("a bug in the engine")

        monkeypatch.setattr(TaskNode, "enter", fail)
        bench.start("c", bench.register(flows.chain("a")))
        bench.start("d", bench.register(Definition("d", (flows.wait("go", None),))))
        steps(bench.orchestrator())
        assert (bench.status("c"), bench.status("d")) == ("blocked", "waiting")

    def test_what_was_refused_in_a_batch_done_again_is_counted_once(self, bench: Bench, poison: Poisoned) -> None:
        bench.start("bad", bench.register(flows.chain("poison")))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        ghost = ResultMessage("nobody", "inc", "0-1a-1-0", 1, "completed", values.inline(b"\xc0"))
        bench.call("XADD", bench.part.events, "*", "m", messages.pack(ghost))
        hand.work()
        steps(orchestrator)
        assert bench.status("bad") == "blocked"
        assert counted(orchestrator, "stale_results_total") == 1


class TestUnreadableRecords:
    def test_a_state_that_is_none(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a", "b"))
        incarnation = bench.start("bad", definition)
        bench.start("good", definition)
        hand = bench.hand()
        first = bench.orchestrator(1)
        steps(first)
        first.close()
        bench.call("HSET", bench.part.state(incarnation), "t1", "rubbish")
        hand.work()
        second = bench.orchestrator(2)
        settle(second, hand)
        snapshot = bench.snapshot("bad")
        assert snapshot.status == "blocked"
        assert "cannot be read" in str(snapshot.reason)
        assert snapshot.parked == 1
        check_once(bench.history("good"), "a", "b")

    @pytest.mark.parametrize("key", ["header", "state"])
    def test_a_key_of_another_type(self, bench: Bench, key: str) -> None:
        """One damaged key must not stop the whole partition."""
        definition = bench.register(flows.chain("a", "b"))
        incarnation = bench.start("bad", definition)
        bench.start("good", definition)
        hand = bench.hand()
        first = bench.orchestrator(1)
        steps(first)
        first.close()
        name = bench.part.header("bad") if key == "header" else bench.part.state(incarnation)
        bench.call("DEL", name)
        bench.call("SET", name, "rubbish")
        hand.work()
        settle(bench.orchestrator(2), hand)
        check_once(bench.history("good"), "a", "b")
        if key == "header":
            (found,) = bench.quarantine()
            assert found["instance"] == "bad"
        else:
            assert bench.status("bad") == "blocked"
        bench.call("DEL", name, *bench.call("KEYS", f"*{bench.keys.ns}*:{incarnation}"))

    def test_a_definition_that_cannot_be_read(self, bench: Bench) -> None:
        definition = flows.chain("a")
        bench.call("SET", bench.keys.definition(definition.digest), "rubbish")
        bench.start("c", definition)
        steps(bench.orchestrator())
        assert bench.status("c") == "blocked"


def test_a_missing_definition_blocks_and_parks(bench: Bench) -> None:
    missing = flows.chain("a", flow="missing")
    incarnation = bench.start("c", missing)
    bench.start("good", bench.register(flows.chain("a", flow="good")))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    settle(orchestrator, hand)
    snapshot = bench.snapshot("c")
    assert snapshot.status == "blocked"
    assert snapshot.reason is not None
    assert missing.digest in snapshot.reason
    bench.signal("c", "s", 1)
    settle(orchestrator, hand)
    parked = [wire.unpack(row) for row in bench.call("LRANGE", bench.part.parked(incarnation), 0, -1)]
    assert [row[0] for row in parked] == ["starts", "events"]
    assert bench.quarantine() == []
    check_once(bench.history("good"), "a")


def test_a_definition_with_a_node_of_an_unknown_kind(bench: Bench) -> None:
    node = replace(flows.task("a", None), kind="loop")
    bench.start("c", bench.register(Definition("new", (node,))))
    steps(bench.orchestrator())
    snapshot = bench.snapshot("c")
    assert snapshot.status == "blocked"
    assert "Deploy orchestrators before workers" in str(snapshot.reason)


def test_a_parked_result_keeps_its_large_value(bench: Bench, poison: Poisoned) -> None:
    """It is accepted, so its value must not run out while somebody looks for the cause."""
    definition = Definition(
        "bad", (flows.fork("fork", None, x=1, y=2), flows.task("poison", None), flows.task("b", None))
    )
    incarnation = bench.start("bad", bench.register(definition))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    steps(orchestrator)
    first, second = sorted(hand.take(), key=lambda held: held.node == "b")
    hand.answer(first)
    steps(orchestrator)
    hand.answer(second, result="x" * 20_000)
    steps(orchestrator)
    (key,) = bench.values(incarnation)
    assert bench.call("PTTL", key) == -1


def test_a_slot_that_is_gone_blocks_its_instance_only(bench: Bench) -> None:
    definition = bench.register(flows.chain("a", "b"))
    orchestrator, hand = bench.orchestrator(cached_value_bytes=0), bench.hand()
    incarnation = bench.start(
        "bad", bench.register(Definition("d", (flows.delay("sleep", 1, 60_000), flows.task("t", None))))
    )
    bench.start("good", definition, codec.encode(1))
    steps(orchestrator)
    bench.call("DEL", bench.part.outputs(incarnation))
    bench.pass_time(60_000)
    settle(orchestrator, hand)
    assert bench.status("bad") == "blocked"
    assert "is gone" in str(bench.snapshot("bad").reason)
    check_once(bench.history("good"), "a", "b")


def test_outputs_of_another_type_block_their_instance_only(bench: Bench) -> None:
    definition = bench.register(Definition("d", (flows.delay("sleep", 1, 60_000), flows.task("t", None))))
    orchestrator, hand = bench.orchestrator(cached_value_bytes=0), bench.hand()
    incarnation = bench.start("bad", definition)
    bench.start("good", definition)
    steps(orchestrator)
    outputs = bench.part.outputs(incarnation)
    bench.ask(("DEL", outputs), ("SET", outputs, "rubbish"))
    token = bench.meta().token
    bench.pass_time(60_000)
    settle(orchestrator, hand)
    assert bench.meta().token == token, "the partition was never given up"
    (found,) = bench.quarantine()
    assert (found["source"], found["instance"]) == ("timers", "bad")
    assert f"The outputs of incarnation {incarnation} are no hash" in found["reason"]
    assert bench.status("bad") == "blocked"
    check_once(bench.history("good"), "t")


def test_cancel_ends_a_blocked_instance_that_has_nothing_running(bench: Bench) -> None:
    definition = flows.chain("a")  # never stored
    bench.start("x", definition)
    orchestrator, hand = bench.orchestrator(), bench.hand()
    settle(orchestrator, hand)
    assert bench.status("x") == "blocked"
    bench.cancel("x", "give it up")
    settle(orchestrator, hand)
    assert bench.status("x") == "cancelled"
