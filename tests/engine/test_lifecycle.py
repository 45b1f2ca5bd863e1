"""Start, cancel, fail, end: what becomes of everything an instance holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine.flows import delay, fork, route, task, wait
from engine.world import INSTANCE, World

from headrace_broker import records
from headrace_broker.messages import CancelMessage


def queued() -> World:
    return World(task("t"))


def queued_with_a_signal() -> World:
    world = World(wait("w", "ok"))
    world.signal("ok")
    return world


def dispatched() -> World:
    return World(task("t"), task("u")).start()


def guarded() -> World:
    world = World(task("t", timeout="1s")).start()
    world.begin("t")
    return world


def backing_off() -> World:
    world = World(task("t", retries=1)).start()
    world.fail("t")
    return world


def unknown_to_its_worker() -> World:
    world = World(task("t")).start()
    world.not_known("t")
    return world


def sleeping() -> World:
    return World(delay("d", "1h")).start()


def awaiting() -> World:
    return World(wait("w", "ok", timeout="1h")).start()


def routing() -> World:
    return World(route("r", a=[task("t")])).start()


def forked() -> World:
    inner = fork("inner", x=[task("x", timeout="1s")], y=[wait("y", "ok"), task("z")])
    world = World(fork("outer", a=[task("a")], b=[delay("b", "1h")], c=[inner], d=[wait("w", "ok", timeout="1h")]))
    world.start().begin("x")
    world.signal("other")
    world.complete("a")
    return world


STATES = [
    *(queued, queued_with_a_signal, dispatched, guarded, backing_off, unknown_to_its_worker),
    *(sleeping, awaiting, routing, forked),
]


# -- start ----------------------------------------------------------------------------------------


def test_a_start_says_who_and_of_what() -> None:
    world = World(task("t")).start()
    assert world.entries("started") == [
        {"flow": "story", "definition": world.definition.digest, "actor": "ann"},
    ]


# -- cancel ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_cancel_ends_it_at_once_whatever_it_does(state: Callable[[], World]) -> None:
    world = state()
    running = set(world.tasks)
    world.cancel("wrong order")

    assert world.status == "cancelled"
    assert set(world.revoked) == running, "who runs a task is told"
    assert (world.stored, world.timers, world.tasks) == ({}, {}, {})
    assert world.error == ["wrong order"]
    assert world.entries("cancel_requested") == [{"reason": "wrong order", "actor": "ann"}]
    assert world.entries("ended") == [{"status": "cancelled", "type": "", "message": "wrong order"}]
    assert world.instance.header["ended"] == str(world.now)


def test_cancel_in_the_commit_that_hands_out_takes_back_what_it_handed_out() -> None:
    world = World(task("a"), task("b")).start()
    draft = world.commit(world.result("a", "completed", value=1), CancelMessage(INSTANCE))
    assert [revoke.dispatch for revoke in draft.revokes] == [task.dispatch for task in draft.dispatches]
    assert world.tasks == {}


def test_a_second_cancel_changes_nothing() -> None:
    world = dispatched()
    world.cancel("first")
    story = list(world.story)
    world.cancel("second")
    assert world.error == ["first"]
    assert world.story == story


def test_a_start_that_comes_after_the_cancel_is_dropped_with_its_input() -> None:
    world = queued()
    world.cancel()
    world.start(world.large())
    assert world.status == "cancelled"
    assert world.handed_out == []
    assert (world.loose, world.kept) == (set(), set())


# -- fail -----------------------------------------------------------------------------------------


def failing_fork() -> World:
    world = World(
        fork(
            "f",
            bad=[task("bad")],
            run=[task("run", timeout="1s")],
            retry=[task("retry", retries=1)],
            sleep=[delay("sleep", "1h")],
            wait=[wait("wait", "ok", timeout="1h")],
            inner=[fork("inner", x=[task("x")], y=[task("y")])],
            done=[task("done")],
        ),
        task("join"),
    ).start()
    world.begin("run")
    world.fail("retry")
    world.complete("done")
    return world


def test_a_failure_stops_the_siblings() -> None:
    world = failing_fork()
    running = {task.node: task.dispatch for task in world.tasks.values()}
    world.fail("bad")

    assert world.status == "failed"
    assert set(world.revoked) == {running[node] for node in ("run", "x", "y")}, "the failed one ended by itself"
    assert (world.tasks, world.timers) == ({}, {})


def test_a_failure_keeps_tokens_and_frames_for_a_retry() -> None:
    world = failing_fork()
    before = {id: (token.node, token.step, token.slot) for id, token in world.tokens.items()}
    frames = world.frames
    world.fail("bad")

    assert world.where == {
        "bad": "failed",
        **dict.fromkeys(("run", "retry", "sleep", "wait", "x", "y"), "stopped"),
    }
    assert {id: (token.node, token.step, token.slot) for id, token in world.tokens.items()} == before
    assert world.frames == frames
    assert records.COUNTERS in world.stored


def test_a_failure_says_what_failed_where_and_why() -> None:
    world = failing_fork()
    world.fail("bad", "CardDeclined")
    assert world.error == ["CardDeclined", "it broke", "Traceback …", "bad"]
    assert world.entries("ended") == [{"status": "failed", "type": "CardDeclined", "message": "it broke"}]
    assert world.instance.header["ended"] == str(world.now)


def test_of_two_failures_in_one_commit_the_first_counts() -> None:
    world = World(fork("f", a=[task("a")], b=[task("b")])).start()
    world.commit(*(world.result(node, "failed") for node in ("b", "a")))
    assert world.error[3] == "b"
    assert world.stale == 1
    assert world.where == {"a": "stopped", "b": "failed"}


def test_a_signals_time_out_fails_its_siblings_too() -> None:
    world = World(fork("f", a=[task("a")], b=[wait("b", "ok", timeout="1s")])).start()
    world.advance("1s")
    assert world.where == {"a": "stopped", "b": "failed"}
    assert world.tasks == {}


# -- end ------------------------------------------------------------------------------------------


def test_the_end_removes_everything() -> None:
    world = World(task("t"), fork("f", a=[wait("a", "ok", timeout="1h")], b=[delay("b", "1s")])).start()
    world.signal("never taken")
    world.complete("t")
    world.advance("1s")
    world.signal("ok", 1)

    assert world.status == "completed"
    assert (world.stored, world.timers, world.tasks) == ({}, {}, {})
    assert world.instance.header["ended"] == str(world.now)
    assert world.entries("ended") == [{"status": "completed", "type": "", "message": ""}]
