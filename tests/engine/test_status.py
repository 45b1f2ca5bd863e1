"""`queued` until the start is applied, `running` while anything is handed out, else `waiting` (DESIGN 3)."""

from __future__ import annotations

import pytest
from engine.flows import Step, delay, fork, task, wait
from engine.world import World


def test_queued_until_the_start_whatever_comes_before() -> None:
    world = World(task("t"))
    assert world.status == "queued"
    world.signal("early")
    assert world.status == "queued"
    world.start()
    assert world.status == "running"


@pytest.mark.parametrize(
    "step", [delay("d", "1s"), wait("w", "n"), fork("f", a=[delay("a", "1s")], b=[wait("b", "n")])]
)
def test_waiting_while_nothing_is_handed_out(step: Step) -> None:
    assert World(step).start().status == "waiting"


def test_running_while_one_branch_is_handed_out() -> None:
    world = World(fork("f", a=[task("a")], b=[delay("b", "1h")])).start()
    assert world.status == "running"
    world.complete("a")
    assert world.status == "waiting"


def test_waiting_between_attempts() -> None:
    world = World(task("t", retries=1)).start()
    world.fail("t")
    assert world.status == "waiting"
    world.advance("1s")
    assert world.status == "running"


def test_running_through_redeliveries() -> None:
    world = World(task("t")).start()
    world.lose("t")
    world.hand_back("t")
    assert world.status == "running"


def test_unchanged_it_is_not_written_again() -> None:
    world = World(task("a"), task("b")).start()
    assert "status" not in world.commit(world.result("a", "completed", value=1)).header


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_the_end_stays_the_end(end: str) -> None:
    world = World(task("t")).start()
    late = world.result("t", "completed", value=1)
    world.end(end)
    ended = world.instance.header["ended"]
    world.advance("1h")
    world.commit(late)
    world.signal("n")
    world.start()
    world.cancel()
    assert world.status == end
    assert world.instance.header["ended"] == ended
