"""A history, folded, tells what ran: one completion per step, and each attempt from hand-out to end (DESIGN 4)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from engine.flows import delay, fork, route, task, wait
from engine.world import World

from headrace_broker import history


def completions(world: World) -> Counter[tuple[Any, Any, Any]]:
    """Completions by (node, frame, branch)."""
    return Counter((entry["node"], entry["frame"], entry["branch"]) for entry in world.entries("completed"))


def troubled() -> World:
    """A flow in which everything that can be repeated is."""
    world = World(
        task("read"),
        fork("parts", size=[task("size", retries=2)], words=[task("words", timeout="1s"), task("count")]),
        route("verdict", good=[task("publish")], bad=[task("drop")]),
        wait("approval", "ok"),
        delay("rest", "1s"),
    ).start()
    read = world.result("read", "completed", value="text")
    world.lose("read")
    world.commit(read)
    world.complete("read", "text")
    world.fail("size")
    world.begin("words")
    world.advance("1s")
    world.hand_back("size")
    words = world.result("words", "completed", value=["a"])
    world.commit(words, words)
    world.not_known("count")
    world.complete("size", 4)
    world.advance("1s")
    world.complete("count", 1)
    world.complete("verdict", route="good")
    world.complete("publish", "url")
    world.signal("ok")
    world.advance("1s")
    return world


def test_one_completion_per_node_frame_and_branch() -> None:
    world = troubled()
    assert world.status == "completed"
    assert world.stale == 2
    found = completions(world)
    assert {node for node, _, _ in found} == {"read", "size", "words", "count", "verdict", "publish"}
    assert set(found.values()) == {1}


def test_steps_are_numbered_in_the_order_they_were_entered() -> None:
    steps = {entry["node"]: entry["step"] for entry in troubled().entries("dispatched")}
    assert steps == {"read": 1, "size": 3, "words": 4, "count": 5, "verdict": 6, "publish": 7}


def test_what_completed_was_handed_out_with_the_same_step_and_attempt() -> None:
    world = troubled()
    keys = ("node", "frame", "branch", "step", "attempt")
    handed_out = {tuple(entry[key] for key in keys) for entry in world.entries("dispatched")}
    assert {tuple(entry[key] for key in keys) for entry in world.entries("completed")} <= handed_out


def test_times_never_go_back_and_the_end_comes_last() -> None:
    world = troubled()
    times = [entry.at for entry in world.history]
    assert times == sorted(times)
    assert world.story[0] == "started"
    assert world.story[-1] == "ended"


def test_every_entry_has_the_fields_that_its_kind_names() -> None:
    world = troubled()
    world.cancel()
    late = World(wait("w", "n", timeout="1s", on_timeout=[task("t")])).start()
    late.advance("1s")
    late.cancel()
    entries = world.history + late.history
    assert {entry.code for entry in entries} == set(history.FIELDS) - {history.BLOCKED, history.UNBLOCKED}
    for entry in entries:
        assert len(entry.fields) == len(history.FIELDS[entry.code][1]), entry
