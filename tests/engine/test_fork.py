from __future__ import annotations

import pytest
from engine.flows import delay, fork, task, wait
from engine.world import World, commands

from headrace_broker.definitions import MAX_WIDTH


def test_suspends_with_a_token_per_branch_on_the_same_input() -> None:
    world = World(fork("both", left=[task("a")], right=[delay("nap", "5s")]), task("after")).start("in")

    assert world.where == {"a": "dispatched", "nap": "sleeping"}
    assert world.given("a") == "in"
    (frame,) = world.frames.values()
    assert frame.remaining == 2
    assert world.story == ["started", "forked", "dispatched", "timer_started"]


def test_completes_when_the_last_branch_ends_and_joins_all_by_name() -> None:
    world = World(fork("both", left=[task("a")], right=[task("b")]), task("after")).start()
    world.complete("b", 2)
    world.complete("a", 1)

    assert world.where == {"after": "dispatched"}
    assert world.given("after") == {"left": 1, "right": 2}
    assert list(world.given("after")) == ["left", "right"], "in the order of the flow, not of time"
    assert world.frames == {}
    assert world.story[-4:] == ["completed", "branch_completed", "joined", "dispatched"]


def test_still_waits_for_the_other_branch() -> None:
    world = World(fork("both", left=[task("a")], right=[task("b")]), task("after")).start()
    world.complete("a", 1)

    assert world.where == {"b": "dispatched"}
    (frame,) = world.frames.values()
    assert frame.remaining == 1


def test_branches_of_several_steps_keep_their_outputs_apart() -> None:
    world = World(fork("both", left=[task("a1"), task("a2")], right=[task("b1"), task("b2")])).start()
    world.complete("a1", "a")
    world.complete("b1", "b")
    assert (world.given("a2"), world.given("b2")) == ("a", "b")
    world.complete("b2", "bb")
    world.complete("a2", "aa")
    assert world.result_value == {"left": "aa", "right": "bb"}


def test_forks_nest() -> None:
    inner = fork("inner", x=[task("x")], y=[wait("y", "go")])
    world = World(fork("outer", one=[task("before"), inner], two=[delay("nap", "1s")])).start("in")
    world.complete("before", "b")
    world.advance("1s")
    assert world.given("x") == "b"
    assert len(world.frames) == 2
    world.complete("x", 1)
    world.signal("go", 2)

    assert world.status == "completed"
    assert world.result_value == {"one": {"x": 1, "y": 2}, "two": "in"}


def test_a_fork_as_the_first_step_of_a_branch_that_ends_with_it() -> None:
    world = World(fork("o", only=[fork("m", only=[fork("i", only=[task("a")])])]), task("z")).start()
    world.complete("a", 1)
    assert world.given("z") == {"only": {"only": {"only": 1}}}


def test_forks_in_a_row_use_frames_of_their_own() -> None:
    world = World(fork("f", a=[task("a")], b=[task("b")]), fork("g", c=[task("c")], d=[task("d")])).start()
    for node in "abcd":
        world.complete(node, node)
    assert world.result_value == {"c": "c", "d": "d"}
    assert [entry["forked_frame"] for entry in world.entries("forked")] == [1, 2]


def test_a_join_without_a_function_gives_one_dict() -> None:
    world = World(fork("both", "dict", a=[task("a")])).start()
    draft = world.commit(world.result("a", "completed", value=1))
    assert b"dict" in draft.outputs["j1"]
    assert world.result_value == {"a": 1}


def test_all_branches_may_pass_at_once() -> None:
    world = World(task("t"), fork("both", l=[wait("l", "n")], r=[wait("r", "n")]), task("after")).start()
    world.signal("n", 1)
    world.signal("n", 2)
    world.complete("t")
    assert world.given("after") == {"l": 1, "r": 2}


@pytest.mark.parametrize("end", ["complete", "cancel", "fail"])
def test_the_widest_fork_stays_within_the_commands_of_a_decision(end: str) -> None:
    world = World(fork("wide", **{f"b{n}": [task(f"t{n}", timeout="1s")] for n in range(MAX_WIDTH)}))
    draft = world.commit(world.started())
    assert len(draft.dispatches) == MAX_WIDTH
    if end == "complete":
        last = [world.result(f"t{n}", "completed", value=n) for n in range(MAX_WIDTH)]
        world.commit(*last)
        assert world.result_value == {f"b{n}": n for n in range(MAX_WIDTH)}
    elif end == "cancel":
        world.cancel()
        assert len(world.revoked) == MAX_WIDTH
    else:
        world.fail("t0")
        assert len(world.revoked) == MAX_WIDTH - 1


def test_a_step_costs_the_same_however_many_branches_there_are() -> None:
    def cost(width: int) -> tuple[int, int, int]:
        world = World(fork("wide", **{f"b{n}": [task(f"t{n}"), task(f"u{n}")] for n in range(width)}))
        draft = world.start().commit(world.result("t0", "completed", value=1))
        return len(draft.changes), len(draft.outputs), commands(draft)

    assert cost(2) == cost(100)
