"""Invariant 2: what comes late, twice or for another hand-out does not count, and leaves nothing behind."""

from __future__ import annotations

from typing import get_args

import pytest
from engine.flows import delay, fork, task, wait
from engine.world import INCARNATION, INSTANCE, World

from headrace_broker.messages import Outcome, StartedMessage
from headrace_orchestrator.engine.apply import Event, TimerFired
from headrace_orchestrator.engine.model import Draft


def ignored(world: World, event: Event) -> Draft:
    """Applies an event that must change nothing but the count of stale ones."""
    state, history = dict(world.stored), len(world.history)
    header, tasks, timers = dict(world.instance.header), dict(world.tasks), dict(world.timers)
    draft = world.commit(event)
    assert (world.stored, len(world.history)) == (state, history)
    assert (world.instance.header, world.tasks, world.timers) == (header, tasks, timers)
    assert (draft.changes, draft.outputs, draft.error) == ({}, {}, None)
    return draft


# -- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_a_result_that_comes_twice_counts_once(outcome: Outcome) -> None:
    world = World(task("a", retries=3), task("b")).start()
    result = world.result("a", outcome, value=1)
    world.commit(result)
    assert ignored(world, result).stale == 1


def test_a_result_that_comes_twice_in_one_batch_counts_once() -> None:
    world = World(task("a"), task("b")).start()
    result = world.result("a", "completed", value=1)
    world.commit(result, result)
    assert world.stale == 1
    assert world.where == {"b": "dispatched"}


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_a_result_of_a_lost_hand_out_does_not_count(outcome: Outcome) -> None:
    world = World(task("a")).start()
    late = world.result("a", outcome, value="from the dead")
    world.lose("a")
    assert ignored(world, late).stale == 1


def test_a_result_after_its_guard_does_not_count() -> None:
    world = World(task("a", retries=1, timeout="1s")).start()
    world.begin("a")
    late = world.result("a", "completed", value="too late")
    world.advance("11s")
    assert ignored(world, late).stale == 1


def test_a_result_for_a_token_that_is_gone_does_not_count() -> None:
    world = World(fork("f", l=[task("a")], r=[task("b")])).start()
    result = world.result("a", "completed", value=1)
    world.complete("a")
    assert ignored(world, result).stale == 1


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_a_result_after_the_end_does_not_count(end: str) -> None:
    world = World(task("a")).start()
    late = world.result("a", "completed", value=1)
    world.end(end)
    assert ignored(world, late).stale == 1


def test_a_start_of_an_old_hand_out_sets_no_guard() -> None:
    world = World(task("a", timeout="1s")).start()
    old = world.task("a")
    world.lose("a")
    ignored(world, StartedMessage(INSTANCE, INCARNATION, old.dispatch, old.token, world.now))


@pytest.mark.parametrize("token", [1, 99])
def test_a_start_of_an_attempt_that_is_over_sets_no_guard(token: int) -> None:
    world = World(task("a", timeout="1s"), wait("w", "n")).start()
    old = world.task("a")
    world.complete("a")
    ignored(world, StartedMessage(INSTANCE, INCARNATION, old.dispatch, token, world.now))


# -- timers ---------------------------------------------------------------------------------------


def test_a_timer_with_an_old_number_does_not_fire() -> None:
    world = World(task("a", retries=3), delay("d", "1h")).start()
    world.fail("a")
    (old,) = world.timers
    world.advance("1s")
    world.fail("a")
    assert old.token == next(iter(world.timers)).token
    ignored(world, TimerFired(*old))


def test_a_timer_of_a_token_that_is_gone_does_not_fire() -> None:
    world = World(delay("d", "1h")).start()
    ignored(world, TimerFired(99, 1))


def test_the_number_of_no_timer_fires_nothing() -> None:
    world = World(task("a")).start()
    ignored(world, TimerFired(next(iter(world.tokens)), 0))


def test_a_timer_that_was_due_when_its_signal_came_does_not_fire() -> None:
    world = World(wait("w", "n", timeout="1s"), delay("d", "1h")).start()
    (old,) = world.timers
    world.signal("n")
    ignored(world, TimerFired(*old))


def test_a_timer_after_the_end_does_not_fire() -> None:
    world = World(delay("d", "1h")).start()
    (old,) = world.timers
    world.cancel()
    ignored(world, TimerFired(*old))


# -- starts and signals ---------------------------------------------------------------------------


def test_a_second_start_changes_nothing() -> None:
    world = World(task("a"))
    start = world.started(world.large())
    world.commit(start)
    ignored(world, start)
    assert world.loose == set()
    assert world.kept == {world.given("a")[1:]}


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_a_signal_after_the_end_is_refused(end: str) -> None:
    world = World(task("a")).start()
    world.end(end)
    world.signal("late", world.large())
    assert world.stale == 1
    assert world.loose == set()
    assert "signal_received" not in world.story


# -- large values ---------------------------------------------------------------------------------


def test_large_values_that_count_are_adopted() -> None:
    world = World(task("a"), wait("w", "n", keep_input=True))
    world.start(world.large())
    world.complete("a", world.large())
    world.signal("buffered", world.large())
    world.signal("n", world.large())
    assert world.loose == set()
    assert world.kept == {"v:1", "v:2", "v:3", "v:4"}
    assert world.result_value == ("@v:2", "@v:4")


def test_the_large_value_of_a_stale_result_is_deleted_and_no_other() -> None:
    world = World(task("a"), task("b")).start()
    first = world.result("a", "completed", value=world.large())
    second = first._replace(value=world.large())
    world.commit(first)
    draft = ignored(world, second)
    assert draft.drop == ["v:2"]
    assert world.kept == {"v:1"}


def test_a_duplicate_in_the_same_commit_does_not_take_the_adopted_value_along() -> None:
    world = World(task("a"), task("b")).start()
    first = world.result("a", "completed", value=world.large())
    world.commit(first, first._replace(value=world.large()))
    assert (world.kept, world.loose) == ({"v:1"}, set())
