"""Children that are worn, and children that die again and again: who follows them, when, and what is said of it."""

from __future__ import annotations

import logging

import pytest

from headrace_workers.causes import ended
from headrace_workers.nursery import MAX_LEAVING
from headrace_workers.pipe import Drain, Failed, Retire, Worn

from .keeping import READY, World, held

pytestmark = pytest.mark.real_only

WORN = Worn("it has begun 9 of 10 tasks")


def test_a_worn_childs_successor_starts_at_once_and_sends_it_off_when_it_is_ready(world: World) -> None:
    first = world.run()
    world.first_words = list
    first.says.append(WORN)
    world.step()
    assert [child.consumer for child in world.children] == ["keeper.1", "keeper.2"]
    assert (first.status, first.told) == (None, []), "it works on while the other one loads"
    second = world.children[-1]
    second.says.append(READY)
    world.step()
    assert first.told == [Retire()]
    assert second.told == []
    first.status = 0
    world.step()
    assert [child.consumer for child in world.keeper.children] == ["keeper.2"]
    assert len(world.children) == 2
    assert first.closed


def test_the_leases_of_a_worn_child_are_renewed_and_its_death_is_reported(world: World) -> None:
    first = world.run()
    message, other = world.feed.hand_out("double"), world.feed.hand_out("double")
    begun, lost = world.deliver(first, message, other)
    first.says += [held((begun, True), (lost, True)), WORN]
    world.step()
    for delivery in (begun, lost):
        world.age(delivery, 9000, first)
    first.says.append(held((begun, True)))
    world.step(1)
    assert world.idle(begun) < 5000
    assert world.idle(lost) >= 9000
    first.status = -11
    world.step()
    assert [world.feed.results()[handed.dispatch].outcome for handed in (message, other)] == ["lost", "lost"]
    assert len(world.children) == 2


def test_only_so_many_leave_at_once(world: World) -> None:
    world.run()
    for _ in range(MAX_LEAVING + 3):
        world.children[-1].says.append(WORN)
        world.step(0.1)
        world.step(0.1)
    assert len(world.children) == MAX_LEAVING + 1
    world.children[1].status = 0
    world.step()
    assert len(world.children) == MAX_LEAVING + 2, "one has gone, so the last may go and its successor come"


def test_a_worn_child_that_leaves_before_it_had_room_to_is_no_death(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.run()
    for _ in range(MAX_LEAVING + 5):
        child = world.children[-1]
        child.says.append(WORN)
        child.status = 0
        count = len(world.children)
        world.step()
        assert len(world.children) == count + 1
    assert "died" not in caplog.text


def test_a_worn_child_is_drained_and_killed_with_the_rest(world: World) -> None:
    world.make(grace_ms=5000)
    first = world.run()
    first.says.append(WORN)
    world.step()
    world.step()
    world.keeper.drain()
    world.children[1].status = 0
    world.step()
    assert first.told == [Retire(), Drain(5000)]
    world.step(16)
    assert first.status == -9
    world.step()
    assert world.keeper.done
    assert len(world.children) == 2


def test_deaths_in_a_row_are_told_with_their_cause_and_the_next_try(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.run()
    with caplog.at_level(logging.WARNING):
        world.children[-1].wrote = ["Traceback", "KeyError: 'DATABASE'"]
        world.children[-1].status = 3
        world.step(20)
        assert caplog.messages == [
            "Child keeper.1 (pid 1) died: exit code 3.\nIts last lines:\n  Traceback\n  KeyError: 'DATABASE'"
        ]
        world.children[-1].wrote = ["Traceback", "KeyError: 'DATABASE'"]
        world.children[-1].status = 3
        world.step()
        assert caplog.messages[1].splitlines()[0] == "Child keeper.2 (pid 2) died: exit code 3."
        assert "That makes 2 in a row within 10 s of their start; the next is started in 0." in caplog.messages[1]
        assert "KeyError" not in caplog.messages[1], "it said that before"
        world.step(5)
        world.children[-1].says = [Failed("Target 'app.py' cannot be loaded: SyntaxError.")]
        world.children[-1].status = 1
        world.step()
        assert "died: Target 'app.py' cannot be loaded: SyntaxError.\nThat makes 3" in caplog.messages[2]
        assert len(caplog.messages) == 3


def test_a_child_that_lived_long_enough_begins_a_new_count(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.run()
    for _ in range(4):
        world.children[-1].status = 1
        world.step(10)
        world.step(10)
    assert "in a row" not in caplog.text
    assert len(world.children) == 5


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit code 0"), (71, "exit code 71"), (-11, "killed by SIGSEGV"), (-60, "killed by signal 60")],
)
def test_causes_in_words(status: int, words: str) -> None:
    assert ended(status) == words


def test_a_sigkill_may_have_been_the_kernels() -> None:
    assert ended(-9).startswith("killed by SIGKILL (by somebody, or by the kernel")
