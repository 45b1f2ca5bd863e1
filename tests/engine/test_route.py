from __future__ import annotations

import pytest
from engine.flows import delay, fork, route, task
from engine.world import World


def test_suspends_while_the_router_decides() -> None:
    world = World(route("verdict", yes=[task("publish")], no=[task("drop")])).start("draft")
    assert world.where == {"verdict": "dispatched"}
    assert world.given("verdict") == "draft"


@pytest.mark.parametrize(("key", "branch"), [("yes", "publish"), ("no", "drop"), ("what", "ask")])
def test_completes_into_the_branch_of_its_key_with_the_previous_output(key: str, branch: str) -> None:
    world = World(route("verdict", yes=[task("publish")], no=[task("drop")], default=[task("ask")]), task("end"))
    world.start("draft")
    world.complete("verdict", key, route=key)

    assert world.where == {branch: "dispatched"}
    assert world.given(branch) == "draft"
    assert world.entries("routed") == [{"node": "verdict", "frame": 0, "branch": 0, "key": key}]

    world.complete(branch, "branch's output")
    assert world.given("end") == "branch's output"
    assert world.frames == {}


def test_still_decides_while_it_is_tried_again() -> None:
    world = World(route("verdict", 1, yes=[task("publish")])).start()
    world.fail("verdict")
    assert world.where == {"verdict": "backoff"}
    world.advance("1s")
    world.lose("verdict")
    assert world.where == {"verdict": "dispatched"}
    world.complete("verdict", route="yes")
    assert world.where == {"publish": "dispatched"}


@pytest.mark.parametrize(("key", "said"), [("maybe", "the key 'maybe'"), (None, "no key")])
def test_a_key_without_a_branch_fails_the_step(key: str | None, said: str) -> None:
    world = World(route("verdict", 3, yes=[task("publish")], no=[task("drop")])).start()
    world.complete("verdict", route=key)

    assert world.status == "failed"
    assert world.error[0] == "UnknownRoute"
    assert said in world.error[1]
    assert "'no', 'yes'" in world.error[1]
    assert "routed" not in world.story


def test_a_router_that_says_nothing_takes_the_default() -> None:
    world = World(route("verdict", yes=[task("publish")], default=[task("ask")])).start()
    world.complete("verdict")
    assert world.where == {"ask": "dispatched"}


def test_branches_may_hold_any_steps_and_meet_again() -> None:
    inner = route("inner", a=[delay("nap", "1s"), task("slow")], b=[task("fast")])
    world = World(route("outer", x=[inner, task("tail")], y=[task("other")]), task("end")).start("in")
    world.complete("outer", route="x")
    world.complete("inner", route="a")
    world.advance("1s")
    world.complete("slow", "s")
    assert world.given("tail") == "s"
    world.complete("tail", "t")
    assert world.given("end") == "t"


def test_a_route_at_the_end_of_a_branch_ends_the_branch() -> None:
    world = World(fork("f", l=[route("r", a=[task("a")], b=[task("b")])], r=[task("c")]), task("z")).start()
    world.complete("r", route="b")
    world.complete("b", 1)
    world.complete("c", 2)
    assert world.given("z") == {"l": 1, "r": 2}


def test_the_routers_own_output_is_used_by_nobody() -> None:
    world = World(route("verdict", yes=[task("publish")])).start()
    world.complete("verdict", world.large(), route="yes")
    assert world.loose == set(), "deleted, not left to its TTL"
    assert world.kept == set()
    assert world.stale == 0, "it did count"
