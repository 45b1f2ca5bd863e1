"""Garbage anywhere: parked with its reason, counted, and the rest goes on (invariant 9)."""

from __future__ import annotations

from typing import Any

import pytest

from headrace_broker import messages, values, wire
from headrace_broker.definitions import Definition
from headrace_broker.messages import GarbageMessage, ResultMessage

from . import flows
from .bench import Bench, check_once, counted, settle, steps

pytestmark = pytest.mark.real_only


def foreign_reference(bench: Bench) -> bytes:
    """A result that names another instance's data as its own."""
    value = values.reference(bench.part.value("another", "x"), 20_000)
    return messages.pack(ResultMessage("c", "inc", "0-1a-1-0", 1, "completed", value))


class TestEvents:
    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            (("foo", "bar"), "no field b'm'"),
            (("m", "not a message"), "Not MessagePack"),
            (("m", b"\x93\x01\x63\x00"), "Unknown kind of message"),
            (("m", wire.pack([9, 3, "x"])), "version"),
            (("m", messages.pack(ResultMessage("c", "i", "nonsense", 1, "failed"))), "dispatch id"),
            (("m", messages.pack(messages.CancelMessage("c"))), "no field b'inc'"),
            (("m", messages.pack(messages.StartMessage("c", "i", "f", "d", b"m"))), "does not belong in events"),
            (("m", b"\xff" * 100_000), "MessagePack"),
        ],
    )
    def test_each_kind(self, bench: Bench, fields: tuple[Any, ...], reason: str) -> None:
        bench.start("c", bench.register(flows.chain("a", "b")))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        entry = bench.call("XADD", bench.part.events, "*", *fields).decode()
        settle(orchestrator, hand)
        (found,) = bench.quarantine()
        assert (found["source"], found["entry"]) == ("events", entry)
        assert reason in found["reason"]
        assert len(found[f"raw:{fields[0]}"]) <= 4096
        assert counted(orchestrator, "quarantined_total", source="events") == 1
        assert bench.call("XLEN", bench.part.events) == 0
        check_once(bench.history("c"), "a", "b")

    def test_a_reference_into_another_instance(self, bench: Bench) -> None:
        bench.call("XADD", bench.part.events, "*", "m", foreign_reference(bench))
        steps(bench.orchestrator())
        (found,) = bench.quarantine()
        assert "not its instance's" in found["reason"]

    def test_what_a_worker_found(self, bench: Bench) -> None:
        message = GarbageMessage("default", "1-0", b"\x00rubbish", "no task message")
        bench.call("XADD", bench.part.events, "*", "m", messages.pack(message))
        steps(bench.orchestrator())
        (found,) = bench.quarantine()
        assert (found["reason"], found["raw:stream"], found["raw:raw"]) == ("no task message", "default", "\x00rubbish")

    def test_an_event_of_an_unknown_instance_is_stale_not_garbage(self, bench: Bench) -> None:
        message = ResultMessage("nobody", "inc", "0-1a-1-0", 1, "completed", values.inline(b"\xc0"))
        bench.call("XADD", bench.part.events, "*", "m", messages.pack(message))
        orchestrator = bench.orchestrator()
        steps(orchestrator)
        assert bench.quarantine() == []
        assert counted(orchestrator, "stale_results_total") == 1


class TestStarts:
    def test_garbage(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        bench.call("XADD", bench.part.starts, "*", "m", "x")
        bench.call("XADD", bench.part.starts, "*", "m", messages.pack(messages.CancelMessage("c")))
        bench.start("c", bench.register(flows.chain("a")))
        orchestrator = bench.orchestrator()
        settle(orchestrator, bench.hand())
        assert [found["source"] for found in bench.quarantine()] == ["starts", "starts"]
        assert "2 entries were put into quarantine" in caplog.text
        check_once(bench.history("c"), "a")

    def test_a_start_without_its_header(self, bench: Bench) -> None:
        message = messages.StartMessage("ghost", "inc", "f", "d", values.inline(b"\xc0"))
        bench.call("XADD", bench.part.starts, "*", "m", messages.pack(message))
        orchestrator = bench.orchestrator()
        steps(orchestrator)
        assert counted(orchestrator, "stale_results_total") == 1
        assert bench.call("XLEN", bench.part.starts) == 0


class TestRawSignals:
    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            (("foo", "bar"), "'instance' is missing"),
            (("instance", "c", "payload", "1"), "'name' is missing"),
            (("instance", "c", "name", "", "payload", "1"), "1 to 256 printable"),
            (("instance", "c", "name", "go", "payload", "{"), "Not JSON: EOF while parsing"),
            (("instance", "c", "name", "go", "payload", b"\xff"), "Not JSON: 'utf-8' codec"),
            (("instance", "c", "name", "go", "payload", "[" * 100_000), "Not JSON: recursion limit"),
            (("instance", "c", "name", "go", "payload", '{"x": NaN}'), "there is no NaN and no Infinity"),
            (("instance", "c", "name", "go", "payload", "-Infinity"), "there is no NaN and no Infinity"),
            (("instance", b"\xff\xfe", "name", "go", "payload", "1"), "decode"),
            (("instance", "a\nb", "name", "go", "payload", "1"), "control"),
            (("instance", "nobody", "name", "go", "payload", "1"), "No instance 'nobody' is known"),
            (("instance", "c", "name", "go", "payload", '"' + "x" * 1_100_000 + '"'), "1,048,576"),
        ],
    )
    def test_each_kind(self, bench: Bench, fields: tuple[Any, ...], reason: str) -> None:
        bench.start("c", bench.register(Definition("s", (flows.wait("go", 1), flows.task("t", None)))))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        bench.call("XADD", bench.keys.signals, "*", *fields)
        steps(orchestrator)
        (found,) = bench.quarantine()
        assert found["source"] == "signals"
        assert reason in found["reason"]
        assert counted(orchestrator, "quarantined_total", source="signals") == 1
        bench.raw_signal("c", "go", "2")
        settle(orchestrator, hand)
        check_once(bench.history("c"), "t")

    def test_one_without_a_payload_is_null(self, bench: Bench) -> None:
        bench.start("c", bench.register(Definition("s", (flows.wait("go", None),))))
        bench.call("XADD", bench.keys.signals, "*", "instance", "c", "name", "go")
        settle(bench.orchestrator(), bench.hand())
        assert bench.output("c") == b"jnull"

    def test_one_for_an_instance_that_has_ended(self, bench: Bench) -> None:
        bench.start("c", bench.register(flows.chain("a")))
        orchestrator = bench.orchestrator()
        settle(orchestrator, bench.hand())
        bench.raw_signal("c", "go", "1")
        steps(orchestrator)
        (found,) = bench.quarantine()
        assert found["reason"] == "The instance has ended: completed."
        assert found["instance"] == "c"

    def test_what_has_no_id_belongs_to_partition_0(self, wide_bench: Bench) -> None:
        bench = wide_bench
        bench.hand()
        bench.call("XADD", bench.keys.signals, "*", "foo", "bar")
        steps(bench.orchestrator())
        assert [len(bench.quarantine(number)) for number in range(4)] == [1, 0, 0, 0]


class TestTaskStreams:
    @pytest.mark.parametrize("fields", [("foo", "bar"), ("m", "rubbish"), ("m", b"\x93\x01\x06\xa1c")])
    def test_garbage_that_nobody_settled(self, bench: Bench, fields: tuple[Any, ...]) -> None:
        """A worker took it and died, say because of it."""
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        bench.call("XADD", hand.sources[0].key, "*", *fields)
        (entry,) = hand.take_raw()
        hand.go_idle(source=hand.sources[0], entry=entry)
        bench.clock.advance(11)
        steps(orchestrator)
        (found,) = bench.quarantine()
        assert (found["source"], found["entry"]) == ("leases", entry)
        assert bench.call("XLEN", hand.sources[0].key) == 0
        assert bench.call("XPENDING", hand.sources[0].key, "workers")[0] == 0
        assert counted(orchestrator, "quarantined_total", source="leases") == 1

    def test_a_task_of_nobody(self, bench: Bench) -> None:
        """A readable one whose instance is not there: taken out, and that is all."""
        bench.start("c", bench.register(flows.chain("a")))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (held,) = hand.take()
        hand.answer(held)
        stray = messages.pack(held.task._replace(instance="nobody", dispatch="junk"))
        bench.call("XADD", hand.sources[0].key, "*", "m", stray)
        (entry,) = hand.take_raw()
        hand.go_idle(source=hand.sources[0], entry=entry)
        bench.clock.advance(11)
        steps(orchestrator)
        assert bench.call("XLEN", hand.sources[0].key) == 0
        check_once(bench.history("c"), "a")


class TestTimers:
    @pytest.mark.parametrize(
        "member", ["rubbish", b"\xff\xfe", "inc:one:2:c", "inc:1", ":::", "inc:" + "9" * 5000 + ":1:c"]
    )
    def test_a_member_that_is_none(self, bench: Bench, member: str | bytes) -> None:
        bench.call("ZADD", bench.part.timers, 1, member)
        bench.start("d", bench.register(Definition("d", (flows.delay("sleep", 1, 60_000), flows.task("t", None)))))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        (found,) = bench.quarantine()
        assert found["source"] == "timers"
        assert found["raw:timer"]
        assert bench.call("ZCARD", bench.part.timers) == 1
        bench.pass_time(60_000)
        settle(orchestrator, hand)
        check_once(bench.history("d"), "t")

    @pytest.mark.parametrize("member", ["gone:1:1:d", "gone:1:1:nobody"])
    def test_one_that_no_longer_counts_is_dropped(self, bench: Bench, member: str) -> None:
        bench.call("ZADD", bench.part.timers, 1, member)
        bench.start("d", bench.register(flows.chain("a")))
        settle(bench.orchestrator(), bench.hand())
        assert bench.quarantine() == []
        assert bench.call("EXISTS", bench.part.timers) == 0

    @pytest.mark.parametrize("score", ["-inf", "inf", "1e300"])
    def test_a_due_time_that_is_none(self, bench: Bench, score: str) -> None:
        bench.call("ZADD", bench.part.timers, score, "rubbish")
        bench.start("c", bench.register(flows.chain("a")))
        orchestrator = bench.orchestrator()
        settle(orchestrator, bench.hand())
        assert orchestrator.owned == [0]
        check_once(bench.history("c"), "a")
        bench.call("DEL", bench.part.timers)
