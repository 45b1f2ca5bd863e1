"""The child loop against real servers: what it takes, how it ends each delivery, what it leaves in the streams."""

from __future__ import annotations

import asyncio
import threading
from enum import Enum

import pytest

from headrace import GiveUp, RetryAfter, TaskContext, current_context, task
from headrace_broker import codec, payloads, values
from headrace_broker.connection import call
from headrace_broker.messages import GarbageMessage, ResultMessage, StartedMessage
from headrace_workers.tracebacks import TRACEBACK_LIMIT
from support.feeding import INCARNATION, Feed
from support.waiting import wait_until_async

from .conftest import Children

pytestmark = pytest.mark.real_only  # fakeredis closes the connection after each error, BUSYGROUP too


class Colour(Enum):
    RED = "red"


@task
async def double(x: int) -> int:
    return 2 * x


@task
def triple(x: int) -> int:
    return 3 * x


@task
async def ids(ctx: TaskContext) -> list[str]:
    assert current_context() is ctx
    return [ctx.idempotency_key, ctx.dispatch_id]


@task
def thread_context() -> str:
    return current_context().dispatch_id


def value_of(result: ResultMessage) -> object:
    assert result.outcome == "completed", result
    assert result.value is not None
    return payloads.load(result.value)


async def test_runs_coroutines_and_functions_and_settles_them(feed: Feed, children: Children) -> None:
    children.start(double, triple)
    handed = [feed.hand_out(task, number) for number in range(20) for task in ("double", "triple")]
    for message in handed:
        result = await feed.result_async(message)
        factor = 2 if message.task == "double" else 3
        assert value_of(result) == factor * payloads.load(message.value)
        assert result.token == message.token
        assert result.worker == "keeper.1"
        assert result.began > 1_600_000_000_000
        assert result.duration_ms >= 0
    await wait_until_async(feed.settled, why="every entry is acknowledged and deleted")
    assert len(feed.of(ResultMessage)) == len(handed)


async def test_a_task_knows_its_context(feed: Feed, children: Children) -> None:
    children.start(ids, thread_context)
    first, second = feed.hand_out("ids"), feed.hand_out("thread_context")
    assert value_of(await feed.result_async(first)) == [f"{INCARNATION}-1", first.dispatch]
    assert value_of(await feed.result_async(second)) == second.dispatch


async def test_a_result_that_can_be_a_route_key_says_so(feed: Feed, children: Children) -> None:
    @task
    async def choose() -> Colour:
        return Colour.RED

    children.start(choose, double)
    assert (await feed.result_async(feed.hand_out("choose"))).route == "red"
    assert (await feed.result_async(feed.hand_out("double", 4))).route == "8"


async def test_a_failure_carries_what_the_policy_and_the_author_say(feed: Feed, children: Children) -> None:
    @task(retries=3)
    async def fails() -> None:
        raise ValueError("no \ud800 good")

    @task(retries=3)
    def gives_up() -> None:
        raise GiveUp("enough")

    @task(retries=3)
    async def comes_back() -> None:
        raise RetryAfter("5s")

    @task
    async def leaves() -> None:
        raise SystemExit(3)

    @task
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    children.start(fails, gives_up, comes_back, leaves, cancels_itself, double)
    failed = (await feed.result_async(feed.hand_out("fails"))).failure
    assert failed is not None
    assert (failed.type, failed.message, failed.may_retry) == ("ValueError", "no ? good", None)
    assert "in fails" in failed.traceback
    assert "headrace_workers" not in failed.traceback
    assert len(failed.traceback) <= TRACEBACK_LIMIT
    given_up = (await feed.result_async(feed.hand_out("gives_up"))).failure
    assert given_up is not None
    assert given_up.may_retry is False
    later = (await feed.result_async(feed.hand_out("comes_back"))).failure
    assert later is not None
    assert later.retry_after_ms == 5000
    for name, kind in (("leaves", "SystemExit"), ("cancels_itself", "CancelledError")):
        failure = (await feed.result_async(feed.hand_out(name))).failure
        assert failure is not None
        assert failure.type == kind
    assert value_of(await feed.result_async(feed.hand_out("double", 1))) == 2


async def test_a_payload_that_does_not_fit_is_not_tried_again(feed: Feed, children: Children) -> None:
    @task
    async def opaque() -> object:
        return object()

    @task
    async def huge() -> bytes:
        return b"x" * (codec.PAYLOAD_LIMIT + 1)

    children.start(double, opaque, huge)
    for message, kind in (
        (feed.hand_out("double", "not a number"), "PayloadMismatch"),
        (feed.hand_out("opaque"), "PayloadNotSerializable"),
        (feed.hand_out("huge"), "PayloadTooLarge"),
    ):
        result = await feed.result_async(message)
        assert result.outcome == "failed"
        assert result.failure is not None
        assert (result.failure.type, result.failure.may_retry) == (kind, False)


async def test_large_values_are_read_and_written_by_reference(feed: Feed, children: Children) -> None:
    @task
    async def grow(text: str) -> str:
        return text * 2

    text = "x" * 40_000
    message = feed.message("grow")
    keys = feed.namespace.of(message.instance)
    key = keys.value(INCARNATION, "input")
    payload = codec.encode(text)
    call(feed.link, "SET", key, payload, "PX", 60_000)
    children.start(grow)
    result = await feed.result_async(feed.hand_out("grow", value=values.reference(key, len(payload))))
    assert result.value is not None
    reference = values.parse(result.value)
    assert isinstance(reference, values.Reference)
    assert codec.decode(call(feed.link, "GET", reference.key)) == text * 2
    assert call(feed.link, "PTTL", reference.key) > 0


async def test_the_parts_of_a_join_are_read_from_their_slots(feed: Feed, children: Children) -> None:
    @task
    async def join(left: int, right: int) -> int:
        return left - right

    message = feed.message("join")
    keys = feed.namespace.of(message.instance)
    for slot, number in (("1.0", 50), ("2.0", 8)):
        call(feed.link, "HSET", keys.outputs(INCARNATION), slot, values.inline(codec.encode(number)))
    value = values.composite("args", ["left", "right"], [values.output("1.0"), values.output("2.0")])
    children.start(join)
    result = await feed.result_async(feed.hand_out("join", instance=message.instance, value=value))
    assert value_of(result) == 42
    call(feed.link, "DEL", keys.outputs(INCARNATION))


async def test_unknown_tasks_are_handed_back_and_garbage_is_reported(feed: Feed, children: Children) -> None:
    children.start(double)
    strange = feed.hand_out("strange")
    feed.add("anything", "default", b"garbage", "7-7")
    assert (await feed.result_async(strange)).outcome == "unknown"
    found = await wait_until_async(lambda: feed.of(GarbageMessage), why="garbage is reported")
    assert found[0].raw == b"garbage"
    assert found[0].stream == feed.namespace.of("anything").tasks("default")
    await wait_until_async(feed.settled, why="both are taken out")


async def test_a_time_out_bites_coroutines_and_threads(feed: Feed, children: Children) -> None:
    release = threading.Event()
    cleaned: list[str] = []

    @task(timeout="50ms")
    async def sleeps() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append("yes")

    @task(timeout="50ms")
    def blocks() -> str:
        release.wait(10)
        return "late"

    @task(timeout="50ms")
    async def stubborn() -> str:
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                cleaned.append("no")
        return "late"

    child = children.start(sleeps, blocks, stubborn, double, lease_ms=200, concurrency=8)
    handed = [feed.hand_out(name, timeout_ms=50) for name in ("sleeps", "blocks", "stubborn")]
    for message in handed:
        result = await feed.result_async(message)
        assert result.outcome == "timed_out"
        assert result.failure is not None
        assert result.failure.type == "TaskTimedOut"
    assert sorted(cleaned) == ["no", "yes"]
    started = {event.dispatch: event for event in feed.of(StartedMessage)}
    assert started.keys() == {message.dispatch for message in handed}
    assert started[handed[0].dispatch].began > 0
    await wait_until_async(feed.settled, why="what timed out is settled")
    release.set()
    assert value_of(await feed.result_async(feed.hand_out("double", 1))) == 2
    await wait_until_async(lambda: not child.abandoned, why="the slots are free again")
    assert len(feed.of(ResultMessage)) == 4, "late results are dropped"


async def test_a_child_half_of_whose_slots_are_stuck_asks_to_be_replaced(feed: Feed, children: Children) -> None:
    release = threading.Event()

    @task(timeout="50ms")
    def blocks() -> None:
        release.wait(10)

    child = children.start(blocks, concurrency=2)
    stuck = feed.hand_out("blocks", timeout_ms=50)
    assert (await feed.result_async(stuck)).outcome == "timed_out"
    await children.ended(child)
    assert child.worn
    assert child.abandoned
    release.set()


async def test_a_revoked_task_is_stopped_and_says_nothing(feed: Feed, children: Children) -> None:
    began, seen = asyncio.Event(), threading.Event()
    stopped: list[str] = []

    @task
    async def waits() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.append("coroutine")
            raise

    @task
    def polls(ctx: TaskContext) -> None:
        seen.set()
        while not ctx.cancelled:
            threading.Event().wait(0.005)
        stopped.append("thread")

    child = children.start(waits, polls, concurrency=8)
    handed = [feed.hand_out("waits"), feed.hand_out("polls")]
    await began.wait()
    await wait_until_async(seen.is_set)
    for message in handed:
        feed.revoke(message, publish=False)
    child.revoke([(feed.namespace.of(m.instance).number, f"{m.dispatch.split('-')[2]}-0") for m in handed])
    await wait_until_async(lambda: len(stopped) == 2 and not child.abandoned, why="both stop")
    await wait_until_async(lambda: not child.snapshot(), why="nothing is held")
    assert feed.results() == {}


async def test_it_takes_no_more_than_it_has_slots_for(feed: Feed, children: Children) -> None:
    release = asyncio.Event()
    running = 0
    most = 0

    @task
    async def holds() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1

    children.start(holds, concurrency=3)
    handed = [feed.hand_out("holds") for _ in range(30)]
    await wait_until_async(lambda: running == 3, why="all slots are taken")
    assert feed.pending() <= 3
    release.set()
    for message in handed:
        assert (await feed.result_async(message)).outcome == "completed"
    assert most == 3


async def test_a_task_that_must_run_alone_does(feed: Feed, children: Children) -> None:
    running: set[str] = set()
    neighbours: dict[str, set[str]] = {}

    @task
    async def shares(name: str) -> None:
        running.add(name)
        for _ in range(5):
            await asyncio.sleep(0.002)
            neighbours.setdefault(name, set()).update(running - {name})
        running.discard(name)

    children.start(shares, concurrency=4)
    handed = [feed.hand_out("shares", f"t{number}", alone=number % 5 == 0) for number in range(20)]
    for message in handed:
        outcome = (await feed.result_async(message)).outcome
        assert outcome == "completed" or (outcome == "returned" and not message.alone)
    for number in range(0, 20, 5):
        assert neighbours[f"t{number}"] == set()


async def test_what_a_killed_child_held_is_begun_by_its_successor_of_that_name(feed: Feed, children: Children) -> None:
    began = asyncio.Event()
    calm = asyncio.Event()

    @task
    async def waits() -> str:
        began.set()
        await calm.wait()
        return "done"

    first = children.start(waits)
    message = feed.hand_out("waits")
    await began.wait()
    await children.kill(first)
    assert feed.pending() == 1
    calm.set()
    children.start(waits)
    assert value_of(await feed.result_async(message)) == "done"


async def test_it_makes_the_groups_again_when_they_are_gone(feed: Feed, children: Children) -> None:
    children.start(double)
    assert value_of(await feed.result_async(feed.hand_out("double", 1))) == 2
    for keys in feed.namespace.all_partitions:
        call(feed.link, "DEL", keys.tasks("default"))
    assert value_of(await feed.result_async(feed.hand_out("double", 2))) == 4


async def test_a_child_whose_tasks_are_all_for_work_horses_reads_nothing(feed: Feed, children: Children) -> None:
    @task(isolation="process")
    def heavy() -> None: ...

    child = children.start(heavy)
    child.drain()
    await children.ended(child)
    assert call(feed.link, "EXISTS", feed.namespace.keys.queues) == 0


async def test_a_drain_lets_begun_tasks_finish_and_hands_the_rest_back(feed: Feed, children: Children) -> None:
    release, began = asyncio.Event(), asyncio.Event()

    @task
    async def waits() -> str:
        began.set()
        await release.wait()
        return "finished"

    child = children.start(waits, concurrency=1)
    first = feed.hand_out("waits")
    await began.wait()
    child.drain(5000)
    second = feed.hand_out("waits")
    release.set()
    await children.ended(child)
    assert value_of(await feed.result_async(first)) == "finished"
    assert feed.results().get(second.dispatch) is None, "a draining child takes no more"
    assert feed.pending() == 0


async def test_the_end_of_the_grace_hands_back_what_still_runs(feed: Feed, children: Children) -> None:
    began, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @task
    def blocks() -> None:
        loop.call_soon_threadsafe(began.set)
        release.wait(10)

    @task
    async def sleeps() -> None:
        await asyncio.sleep(60)

    child = children.start(blocks, sleeps, concurrency=4)
    handed = [feed.hand_out("sleeps"), feed.hand_out("blocks")]
    await began.wait()
    await wait_until_async(lambda: feed.pending() == 2)
    child.drain(0)
    await children.ended(child)
    for message in handed:
        assert (await feed.result_async(message)).outcome == "returned"
    assert feed.settled()
    release.set()


async def test_a_snapshot_names_what_is_held_and_the_keeper_hears_before_it_begins(
    feed: Feed, children: Children
) -> None:
    release, began = asyncio.Event(), asyncio.Event()
    heard: list[tuple[str, str]] = []

    @task
    async def waits() -> None:
        began.set()
        await release.wait()

    child = children.start(waits, begins=lambda key, entry: heard.append((key, entry)))
    first = feed.hand_out("waits")
    await began.wait()
    await wait_until_async(lambda: feed.pending() == 1)
    (row,) = child.snapshot()
    assert row.key == feed.namespace.of(first.instance).tasks("default")
    assert (row.entries, row.begun) == (["1-0"], [True])
    alone = feed.hand_out("waits", alone=True)
    await wait_until_async(lambda: sum(len(row.entries) for row in child.snapshot()) == 2, why="both are held")
    assert not all(flag for row in child.snapshot() for flag in row.begun)
    assert heard == []
    release.set()
    await feed.result_async(alone)
    assert heard == [(feed.namespace.of(alone.instance).tasks("default"), "2-0")]
