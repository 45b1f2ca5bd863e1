from __future__ import annotations

import pytest
from engine.flows import task
from engine.world import World


def test_suspends_with_a_hand_out() -> None:
    world = World(task("charge", queue="payments", timeout="30s", retries=2)).start({"sum": 7})

    assert world.where == {"charge": "dispatched"}
    assert world.given("charge") == {"sum": 7}
    hand_out = world.task("charge")
    assert (hand_out.call.task, hand_out.call.queue, hand_out.call.timeout_ms) == ("charge", "payments", 30_000)
    assert (hand_out.attempt, hand_out.losses, hand_out.alone) == (1, 0, False)
    assert world.story == ["started", "dispatched"]


def test_completes_and_its_output_flows_on() -> None:
    world = World(task("charge"), task("settle")).start()
    world.complete("charge", 100)

    assert world.where == {"settle": "dispatched"}
    assert world.given("settle") == 100

    world.complete("settle", "done")
    assert world.status == "completed"
    assert world.result_value == "done"
    assert world.story == ["started", "dispatched", "completed", "dispatched", "completed", "ended"]


def test_still_waits_while_time_passes_and_others_are_signalled() -> None:
    world = World(task("charge")).start()
    before = world.task("charge")
    world.advance("7d")
    world.signal("approval")
    world.begin("charge")

    assert world.where == {"charge": "dispatched"}
    assert world.task("charge") == before


def test_its_completion_says_who_did_it_and_when() -> None:
    world = World(task("charge")).start()
    world.advance("3s")
    world.complete("charge", 1)

    (done,) = world.entries("completed")
    assert done == {
        "node": "charge",
        "frame": 0,
        "branch": 0,
        "step": 1,
        "attempt": 1,
        "began": world.now,
        "duration_ms": 7,
        "worker": "w1",
    }


def test_each_step_has_a_number_of_its_own_and_attempts_share_it() -> None:
    world = World(task("a", retries=1), task("b")).start()
    first = world.task("a")
    world.fail("a")
    world.advance("1s")
    second = world.task("a")
    world.complete("a", 1)

    assert (first.step, second.step, world.task("b").step) == (1, 1, 2)
    assert first.dispatch != second.dispatch


@pytest.mark.parametrize(("isolation", "stream"), [("thread", "cpu"), ("process", "cpu:process")])
def test_a_revoked_hand_out_is_looked_for_in_its_own_stream(isolation: str, stream: str) -> None:
    world = World(task("crunch", queue="cpu", isolation="process" if isolation == "process" else "thread")).start()
    draft = world.commit(world.result("crunch", "lost"))
    assert [revoke.stream for revoke in draft.revokes] == [stream]


def test_a_failure_without_retries_fails_the_instance() -> None:
    world = World(task("charge"), task("settle")).start()
    world.fail("charge", "CardDeclined")

    assert world.status == "failed"
    assert world.error == ["CardDeclined", "it broke", "Traceback …", "charge"]
    assert world.where == {"charge": "failed"}
    assert world.story[-2:] == ["attempt_failed", "ended"]
