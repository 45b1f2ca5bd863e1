"""When a child has worked enough, and what it does then."""

from __future__ import annotations

import asyncio
import threading

import pytest

from headrace import task
from headrace_broker.messages import ResultMessage
from headrace_workers.wear import Limits, Wear, resident_bytes, shown
from support.feeding import Feed
from support.waiting import wait_until_async

from .conftest import Children


class Told:
    """A `Wear`, and what it said."""

    def __init__(self, limits: Limits) -> None:
        self.size = 0
        self.soon: list[str] = []
        self.out: list[str] = []
        self.wear = Wear(limits, resident=lambda: self.size, soon=self.soon.append, out=self.out.append)

    def begin(self, count: int) -> None:
        for _ in range(count):
            self.wear.begun()


def test_a_successor_is_asked_for_when_nine_tenths_of_the_tasks_have_begun() -> None:
    told = Told(Limits(tasks=20))
    told.begin(17)
    assert (told.soon, told.out, told.wear.room) == ([], [], 3)
    told.begin(1)
    assert (told.soon, told.out) == (["it has begun 18 of 20 tasks"], [])
    told.begin(2)
    assert (told.out, told.wear.room) == (["it has begun 20 of 20 tasks"], 0)


def test_a_limit_of_one_task_is_reached_by_the_first() -> None:
    told = Told(Limits(tasks=1))
    told.begin(1)
    assert (told.soon, told.out) == ([], ["it has begun 1 of 1 tasks"])


def test_memory_counts_only_once_a_task_has_begun() -> None:
    told = Told(Limits(memory=512_000_000))
    told.size = 600_000_000
    told.wear.weigh()
    assert told.out == []
    told.begin(1)
    told.wear.weigh()
    assert told.out == ["it takes 600.0MB of memory after 1 task, and 512.0MB is too much"]


def test_without_limits_nothing_wears_out() -> None:
    told = Told(Limits())
    told.size = 10**15
    told.begin(1000)
    told.wear.weigh()
    assert (told.soon, told.out) == ([], [])


def test_the_resident_set_is_that_of_now() -> None:
    before = resident_bytes()
    big = bytearray(b"x") * 64_000_000
    assert resident_bytes() - before > 32_000_000, f"{shown(before)} to {shown(resident_bytes())}"
    del big


@task
async def quick(x: int) -> int:
    return x


@pytest.mark.real_only
async def test_a_child_begins_no_more_tasks_than_it_may_and_leaves_the_rest(feed: Feed, children: Children) -> None:
    reasons: list[str] = []
    child = children.start(quick, limits=Limits(tasks=10), concurrency=4, worn=reasons.append)
    handed = [feed.hand_out("quick", number) for number in range(30)]
    await children.ended(child)
    outcomes = [result.outcome for result in feed.of(ResultMessage)]
    assert outcomes.count("completed") == 10
    assert set(outcomes) <= {"completed", "returned"}, "what was read and not begun is handed back"
    assert reasons == ["it has begun 9 of 10 tasks"]
    second = children.start(quick, consumer="keeper.2")
    for message in handed:
        if message.dispatch not in feed.results():
            assert (await feed.result_async(message)).outcome == "completed", "nothing is stuck with the worn one"
    assert not second.worn


@pytest.mark.real_only
async def test_a_child_that_is_too_big_takes_no_more_and_lets_what_runs_finish(feed: Feed, children: Children) -> None:
    release, started = asyncio.Event(), threading.Event()
    size = 1

    @task
    async def waits() -> str:
        started.set()
        await release.wait()
        return "done"

    child = children.start(waits, quick, limits=Limits(memory=100), concurrency=2, grace_ms=1, resident=lambda: size)
    long = feed.hand_out("waits")
    await wait_until_async(started.is_set, why="it runs")
    size = 100
    await wait_until_async(lambda: child.worn, why="it was weighed")
    late = feed.hand_out("quick", 1)
    second = children.start(quick, waits, consumer="keeper.2")
    taken = await feed.result_async(late)
    assert (taken.outcome, taken.worker) in (("completed", "keeper.2"), ("returned", "keeper.1")), "it begins no more"
    assert long.dispatch not in feed.results(), "the grace is for a worker that stops"
    release.set()
    assert (await feed.result_async(long)).outcome == "completed"
    await children.ended(child)
    assert not second.worn


@pytest.mark.real_only
async def test_a_drain_ends_the_patience_of_a_worn_child(feed: Feed, children: Children) -> None:
    started = threading.Event()

    @task
    async def hangs() -> None:
        started.set()
        await asyncio.Event().wait()

    child = children.start(hangs, limits=Limits(tasks=1))
    message = feed.hand_out("hangs")
    await wait_until_async(lambda: started.is_set() and child.worn, why="it runs, and the child has had its share")
    child.drain(0)
    await children.ended(child)
    assert (await feed.result_async(message)).outcome == "returned"
