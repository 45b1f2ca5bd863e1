"""Ended instances go when they are due, with all that was theirs; nothing else goes, and nothing comes back."""

from __future__ import annotations

import json

import pytest

from headrace_broker import codec, messages, values
from headrace_broker.connection import Command
from headrace_broker.definitions import Definition
from headrace_broker.deletion import SCRIPT_LIMIT, DeleteRequest, forget
from headrace_broker.errors import Fenced, InstanceNotEnded, InstanceNotFound, ServerUnreachable
from headrace_broker.instances import index_member
from headrace_broker.messages import StartMessage
from headrace_broker.retention import Retention, Rule
from headrace_orchestrator.sweeping.sweeper import LARGE_VALUES, SLICE

from . import flows
from .bench import Bench, Counting, counted, settle, steps
from .hand import Hand

pytestmark = pytest.mark.real_only

MINUTE, HOUR, DAY = 60_000, 3_600_000, 24 * 3_600_000
LARGE = "x" * 100_000
PERMANENT = {"namespace", "queues", "workers", "flows", "flow", "definition", "definitions", "meta", "tasks"}
"""And the inboxes, the owner's key and answers to requests, which end by themselves."""
ENDING = {"owner", "events", "starts", "request", "signals"}


def ended(bench: Bench, orchestrator: Counting, hand: Hand, id: str, status: str = "completed", flow: str = "f") -> str:
    """An instance that has ended; its incarnation."""
    incarnation = bench.start(id, flows.chain("a", flow=flow))
    steps(orchestrator)
    (held,) = hand.take()
    if status == "completed":
        hand.answer(held)
    elif status == "failed":
        hand.fail(held)
    else:
        bench.cancel(id)
    steps(orchestrator)
    assert bench.status(id) == status
    return incarnation


def known(bench: Bench, *ids: str) -> list[str]:
    return [id for id in ids if bench.call("EXISTS", bench.namespace.of(id).header(id))]


class TestWhatIsDue:
    def test_completed_ones_after_a_day_failed_ones_after_a_week(self, bench: Bench) -> None:
        bench.register(flows.chain("a", flow="f"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        for status in ("completed", "cancelled", "failed"):
            ended(bench, orchestrator, hand, status, status)
        bench.sweep(orchestrator, DAY - 2 * MINUTE)
        assert known(bench, "completed", "cancelled", "failed") == ["completed", "cancelled", "failed"]
        bench.sweep(orchestrator, 3 * MINUTE)
        assert known(bench, "completed", "cancelled", "failed") == ["failed"]
        bench.sweep(orchestrator, 6 * DAY - 3 * MINUTE)
        assert known(bench, "failed") == ["failed"]
        bench.sweep(orchestrator, 3 * MINUTE)
        assert not known(bench, "failed")
        assert counted(orchestrator, "instances_swept_total", flow="f", reason="age") == 3
        assert counted(orchestrator, "sweep_backlog") == 0

    def test_a_flow_s_own_retention_holds_before_the_orchestrators(self, bench: Bench) -> None:
        for flow, retention in (("short", Retention("1h")), ("long", Retention("forever")), ("usual", None)):
            bench.register(flows.chain("a", flow=flow), retention)
        orchestrator, hand = bench.orchestrator(retention=Rule(completed_ms=DAY)), bench.hand()
        for flow in ("long", "usual", "short"):
            ended(bench, orchestrator, hand, flow, flow=flow)
        bench.sweep(orchestrator, HOUR)
        assert known(bench, "short", "usual", "long") == ["usual", "long"]
        bench.sweep(orchestrator, DAY)
        assert known(bench, "usual", "long") == ["long"]
        bench.sweep(orchestrator, 1000 * DAY)
        assert known(bench, "long") == ["long"]

    def test_a_changed_retention_holds_for_what_has_ended(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a", flow="f"), Retention("forever"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        ended(bench, orchestrator, hand, "c")
        bench.sweep(orchestrator, 30 * DAY)
        assert known(bench, "c")
        bench.register(definition, Retention("1h"))
        bench.sweep(orchestrator)
        assert not known(bench, "c")

    def test_the_count_is_over_all_partitions_and_takes_the_oldest_completed_ones(self, wide_bench: Bench) -> None:
        bench = wide_bench
        bench.register(flows.chain("a", flow="f"), Retention(count=6))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        failed = [f"failed-{n}" for n in range(2)]
        completed = [f"c{n}" for n in range(12)]
        for id in failed:
            ended(bench, orchestrator, hand, id, "failed")
        for id in completed:
            ended(bench, orchestrator, hand, id)
            bench.pass_time(1000)
        bench.sweep(orchestrator)
        assert known(bench, *failed) == failed
        left = known(bench, *completed)
        assert len(left) == 4
        for keys in bench.namespace.all_partitions:
            here = [id for id in completed if bench.namespace.of(id) == keys]
            kept = [id for id in here if id in left]
            assert kept == here[len(here) - len(kept) :], "in each partition the newest stay"
        assert counted(orchestrator, "instances_swept_total", reason="count") == 8

    def test_live_instances_count_for_nothing(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a", flow="f"), Retention(0, 0, 0))
        orchestrator = bench.orchestrator()
        for id in ("a", "b"):
            bench.start(id, definition)
        bench.sweep(orchestrator, 100 * DAY)
        assert known(bench, "a", "b") == ["a", "b"]

    def test_archived_uses_of_an_id_go_and_the_newest_stays(self, bench: Bench) -> None:
        bench.register(flows.chain("a", flow="f"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        first = ended(bench, orchestrator, hand, "c")
        bench.pass_time(DAY // 2)
        second = ended(bench, orchestrator, hand, "c")
        assert bench.call("EXISTS", bench.part.archive(first)) == 1
        bench.sweep(orchestrator, DAY // 2)
        assert bench.call("EXISTS", bench.part.archive(first), bench.part.history(first)) == 0
        assert bench.snapshot("c").incarnation == second
        assert bench.history("c")

    def test_one_that_lives_again_leaves_the_index_and_stays(self, bench: Bench) -> None:
        """What `retry` will do; it must never lose against a sweeper that has seen the instance as ended."""
        bench.register(flows.chain("a", flow="f"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        ended(bench, orchestrator, hand, "c", "failed")
        bench.call("HSET", bench.part.header("c"), "status", "running")
        bench.sweep(orchestrator, 30 * DAY)
        assert known(bench, "c")
        assert bench.history("c")
        assert bench.call("EXISTS", bench.part.retained("failed", "f")) == 0


class TestWhatGoes:
    def test_only_permanent_keys_are_left(self, bench: Bench) -> None:
        """Large inputs, results and signals, taken or not, parked events, an archived use, a join's composite."""
        nodes = Definition(
            "f",
            (
                flows.fork("fork", 3, left=1, right=2),
                flows.task("left", None),
                flows.task("right", None),
                flows.wait("go", None),
            ),
        )
        definition = bench.register(nodes)
        orchestrator, hand = bench.orchestrator(), bench.hand()
        for _ in range(2):
            bench.start("c", definition, LARGE)
            settle(orchestrator, hand, results={"left": LARGE, "right": LARGE})
            bench.signal("c", "go", LARGE)
            bench.signal("c", "go", LARGE)
            steps(orchestrator)
            assert bench.status("c") == "completed"
        unknown = flows.chain("a", flow="f2")
        bench.register(unknown)
        incarnation = bench.start("d", unknown, LARGE)
        bench.call("DEL", bench.keys.definition(unknown.digest))
        steps(orchestrator)
        bench.signal("d", "go", LARGE)
        bench.raw_signal("d", "go", json.dumps(LARGE))
        steps(orchestrator)
        assert bench.status("d") == "blocked"
        assert bench.call("LLEN", bench.part.parked(incarnation)) == 3
        bench.cancel("d")
        steps(orchestrator)
        bench.sweep(orchestrator, 2 * DAY)
        assert bench.kinds_left() <= PERMANENT | ENDING
        assert counted(orchestrator, "instances_swept_total") == 3

    def test_it_is_gone_for_every_reader(self, bench: Bench) -> None:
        bench.register(flows.chain("a", flow="f"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        incarnation = ended(bench, orchestrator, hand, "c")
        bench.sweep(orchestrator, DAY)
        with pytest.raises(InstanceNotFound):
            bench.snapshot("c")
        with pytest.raises(InstanceNotFound):
            bench.history("c")
        for keys in bench.namespace.all_partitions:
            for index in (keys.by_status("completed"), keys.by_flow("f"), keys.retained("completed", "f")):
                assert bench.call("ZSCORE", index, index_member(incarnation, "c")) is None

    def test_many_large_values_go_in_several_slices(self, bench: Bench) -> None:
        bench.register(flows.chain("a", flow="f"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        incarnation = ended(bench, orchestrator, hand, "c")
        names = [bench.part.value(incarnation, str(n)) for n in range(40 * LARGE_VALUES)]
        bench.ask(*(("SET", name, "x") for name in names), ("SADD", bench.part.large(incarnation), *names))
        bench.delete("c")
        slices = list[int]()

        def count(commands: object) -> None:
            slices.append(sum(len(row) - 1 for row in bench.tap.sent[-4:] if row[0] == "UNLINK"))

        bench.tap.before = count
        steps(orchestrator)
        bench.tap.before = None
        assert bench.values(incarnation) == []
        assert max(slices) < 3 * LARGE_VALUES
        assert bench.call("EXISTS", bench.part.purge) == 0


class TestNothingComesBack:
    def test_late_words_of_a_deleted_instance(self, bench: Bench) -> None:
        bench.register(flows.chain("a", flow="f"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        incarnation = bench.start("c", flows.chain("a", flow="f"))
        steps(orchestrator)
        (held,) = hand.take()
        bench.cancel("c")
        steps(orchestrator)
        bench.delete("c")
        steps(orchestrator)
        hand.answer(held, result=LARGE)
        hand.report_start(held, 0)
        start = StartMessage("c", incarnation, "f", held.task.dispatch, values.inline(codec.encode(None)))
        bench.call("XADD", bench.part.starts, "*", "m", messages.pack(start))
        bench.call("ZADD", bench.part.timers, 1, f"{incarnation}:1:1:c")
        bench.raw_signal("c", "go", "1")
        orchestrator.close()
        orchestrator = bench.orchestrator()  # which looks for timers
        settle(orchestrator, hand)
        assert bench.kinds_left() <= PERMANENT | ENDING | {"quarantine"}
        assert bench.values(incarnation) == []
        assert [row["reason"] for row in bench.quarantine()] == ["No instance 'c' is known."]
        assert counted(orchestrator, "stale_results_total") == 3

    def test_a_deleted_id_is_free(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a", flow="f"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        first = ended(bench, orchestrator, hand, "c")
        bench.delete("c")
        steps(orchestrator)
        second = bench.start("c", definition)
        assert first != second
        settle(orchestrator, hand)
        assert bench.status("c") == "completed"
        assert bench.call("EXISTS", bench.part.archive(first)) == 0


class TestDelete:
    def test_an_ended_instance_goes_at_once(self, bench: Bench) -> None:
        bench.register(flows.chain("a", flow="f"), Retention("forever", "forever", "forever"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        for id in ("c", "d"):
            ended(bench, orchestrator, hand, id)
        bench.delete("c")
        steps(orchestrator)
        assert known(bench, "c", "d") == ["d"]
        assert counted(orchestrator, "instances_swept_total", reason="asked") == 1

    @pytest.mark.parametrize("status", ["queued", "running", "cancelling"])
    def test_a_live_one_is_refused(self, bench: Bench, status: str) -> None:
        bench.start("c", bench.register(flows.chain("a", flow="f")))
        bench.call("HSET", bench.part.header("c"), "status", status)
        with pytest.raises(InstanceNotEnded, match=f"is {status}; only what has ended can be deleted. Cancel it first"):
            bench.delete("c")
        assert bench.call("EXISTS", bench.part.events) == 0

    def test_an_unknown_one(self, bench: Bench) -> None:
        with pytest.raises(InstanceNotFound):
            bench.delete("c")

    def test_the_same_request_gets_the_same_answer(self, bench: Bench) -> None:
        bench.register(flows.chain("a", flow="f"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        incarnation = ended(bench, orchestrator, hand, "c")
        request = DeleteRequest("c")
        assert bench.hold(request.hold(bench.namespace)) == incarnation
        steps(orchestrator)
        assert not known(bench, "c")
        assert bench.hold(request.hold(bench.namespace)) == incarnation

    def test_an_earlier_use_of_an_id(self, bench: Bench) -> None:
        bench.register(flows.chain("a", flow="f"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        first, second = (ended(bench, orchestrator, hand, "c") for _ in range(2))
        assert bench.delete("c", first) == first
        steps(orchestrator)
        assert bench.call("EXISTS", bench.part.archive(first), bench.part.history(first)) == 0
        assert bench.snapshot("c").incarnation == second
        with pytest.raises(InstanceNotFound):
            bench.delete("c", first)

    def test_it_is_durable_with_no_orchestrator(self, bench: Bench) -> None:
        """Even if the message is lost: the mark in the index is what counts."""
        bench.register(flows.chain("a", flow="f"), Retention("forever"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        ended(bench, orchestrator, hand, "c")
        orchestrator.close()
        bench.delete("c")
        bench.call("DEL", bench.part.events)
        again = bench.orchestrator()
        steps(again)
        assert known(bench, "c")
        bench.sweep(again)
        assert not known(bench, "c")


class TestKillsAndOwners:
    def test_a_kill_at_any_moment_leaves_nothing_behind(self, bench: Bench) -> None:
        """After each write of a sweep in turn the orchestrator dies; the next one finishes."""
        bench.register(flows.chain("a", flow="f"))
        killed = 0
        for kill_at in range(1, 12):
            orchestrator, hand = bench.orchestrator(), bench.hand(f"hand{kill_at}")
            bench.start("c", flows.chain("a", flow="f"), LARGE)
            settle(orchestrator, hand, results={"a": LARGE})
            bench.delete("c")
            bench.tap.after = _Killer(kill_at)
            try:
                steps(orchestrator)
            except ServerUnreachable:
                killed += 1
            bench.tap.after = None
            orchestrator.disconnect()
            bench.call("DEL", bench.part.owner)
            again = bench.orchestrator()
            steps(again)
            bench.sweep(again)
            assert bench.kinds_left() <= PERMANENT | ENDING, kill_at
            again.close()
        assert killed >= 8, "the last rounds may have had nothing left to kill"

    def test_who_lost_the_partition_deletes_nothing(self, bench: Bench) -> None:
        bench.register(flows.chain("a", flow="f"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        incarnation = ended(bench, orchestrator, hand, "c")
        member = index_member(incarnation, "c").encode()
        with pytest.raises(Fenced):
            bench.hold(forget(bench.part, "another", "completed", "f", [member]))
        bench.call("HSET", bench.part.meta, "token", "another")
        bench.sweep(orchestrator, DAY)
        assert known(bench, "c")
        assert counted(orchestrator, "fenced_commits_total") >= 1

    def test_doing_it_twice_changes_nothing(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a", flow="f"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        incarnation = ended(bench, orchestrator, hand, "c")
        member, token = index_member(incarnation, "c").encode(), bench.meta().token
        bench.hold(forget(bench.part, token, "completed", "f", [member]))
        second = bench.start("c", definition)
        bench.hold(forget(bench.part, token, "completed", "f", [member]))
        assert bench.snapshot("c").incarnation == second
        bench.sweep(orchestrator)
        settle(orchestrator, hand)
        assert bench.status("c") == "completed"
        assert bench.call("HGETALL", bench.part.counted) == [definition.digest.encode(), b"1"]


class TestBounds:
    def test_slices_are_bounded_and_events_come_between(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a", flow="f"), Retention(0))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        many = [f"c{n}" for n in range(3 * SLICE)]
        for id in many:
            bench.start(id, definition)
            bench.cancel(id)
        settle(orchestrator, hand)
        bench.pass_time(MINUTE)
        while len(known(bench, *many)) == len(many):  # the look, then the first slice
            orchestrator.step(0)
        assert len(known(bench, *many)) == 2 * SLICE
        bench.start("new", definition)
        orchestrator.step(0)
        assert bench.status("new") == "running", "the first turn after it came"
        bench.tap.sent.clear()
        steps(orchestrator)
        assert known(bench, *many) == []
        assert max(len(command) for command in bench.tap.sent if command[0] == "EVALSHA") < SCRIPT_LIMIT + 20

    def test_a_busy_orchestrator_sweeps_too(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a", flow="f"), Retention(0))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        ended(bench, orchestrator, hand, "c")
        bench.pass_time(MINUTE)
        for turn in range(40):
            bench.start(f"busy{turn}", definition)
            assert orchestrator.step(0)
        assert not known(bench, "c")

    def test_what_cannot_be_swept_stops_nothing(self, bench: Bench) -> None:
        bench.register(flows.chain("a", flow="f"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        for id in ("broken", "c"):
            ended(bench, orchestrator, hand, id)
        bench.call("DEL", bench.part.header("broken"))
        bench.call("SET", bench.part.header("broken"), "a strange hand")
        bench.call("ZADD", bench.part.retained("completed", "f"), 1, "nonsense")
        bench.sweep(orchestrator, DAY)
        assert known(bench, "broken", "c") == ["broken"]
        bench.call("DEL", bench.part.header("broken"))
        assert bench.kinds_left() <= PERMANENT | ENDING | {"counted"}

    def test_an_index_of_another_type_costs_only_its_flow(self, bench: Bench) -> None:
        bench.register(flows.chain("a", flow="f"))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        ended(bench, orchestrator, hand, "c")
        bench.call("SET", bench.part.purge, "a strange hand")
        bench.sweep(orchestrator, DAY)
        assert known(bench, "c")
        assert orchestrator.owned == [0], "and the partition goes on"
        bench.call("DEL", bench.part.purge)
        bench.sweep(orchestrator)
        assert not known(bench, "c")


class _Killer:
    """Lets so many exchanges with the sweeper's commands pass, and loses the reply of the last one."""

    def __init__(self, after: int) -> None:
        self._left = after

    def __call__(self, command: Command, reply: object) -> object:
        if command[0] in ("EVALSHA", "UNLINK", "SREM", "SCARD", "SSCAN", "SRANDMEMBER", "ZRANGEBYSCORE", "EXEC"):
            self._left -= 1
            if self._left == 0:
                raise ServerUnreachable("killed")
        return reply
