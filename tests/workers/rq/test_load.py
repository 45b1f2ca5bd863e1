"""A worker amid ten thousand tasks: it starts, is stopped with every slot taken, and loses and repeats nothing."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from headrace_broker import messages
from headrace_broker.connection import exchange
from headrace_broker.messages import ResultMessage, TaskMessage
from support.feeding import Feed
from support.waiting import wait_until

from .conftest import PATIENCE, STREAM, StartRq, is_alive, rq_keys

pytestmark = [
    pytest.mark.real_only,
    pytest.mark.leaves_keys("namespace"),
    pytest.mark.servers("redis"),
    pytest.mark.timeout(120),
    pytest.mark.full_only,
]

TARGET = """
import asyncio, pathlib, time
from headrace import task

@task
async def quick(x: int) -> int:
    return x

@task
async def waits(path: str) -> None:
    pathlib.Path(path).touch()
    await asyncio.sleep(60)

@task
def sleeps(path: str) -> None:
    pathlib.Path(path).touch()
    time.sleep(60)

@task(isolation="process")
def toils(path: str) -> None:
    pathlib.Path(path).touch()
    time.sleep(60)
"""
QUICK = 9_950
SLOTS = 32
GRACE_MS = 500


def test_ten_thousand_wait_and_it_is_stopped_when_every_slot_is_taken(
    feed: Feed, start: StartRq, tmp_path: Path
) -> None:
    (tmp_path / "target.py").write_text(TARGET)
    begun = tmp_path / "begun"
    begun.mkdir()
    quick = _hand_out_all(feed, [("quick", number) for number in range(QUICK)])
    long = _hand_out_all(feed, [(task, str(begun / f"{task}{n}")) for n in range(25) for task in ("waits", "sleeps")])
    toil = [feed.hand_out("toils", str(begun / f"toils{n}"), stream=STREAM) for n in range(3)]
    worker = start(targets=[str(tmp_path / "target.py")], concurrency=SLOTS, grace_ms=GRACE_MS, lease_ms=2000)

    def all_slots_taken() -> bool:
        found = Counter(path.name.rstrip("0123456789") for path in begun.iterdir())
        return found["waits"] + found["sleeps"] == SLOTS and found["toils"] == 1

    wait_until(all_slots_taken, 60, "all slots to be taken")
    wait_until(lambda: len(feed.results()) >= QUICK, PATIENCE, "the results of all that was quick")
    family = worker.family()
    told = time.monotonic()
    worker.stop()
    assert worker.ended() == 0
    assert time.monotonic() - told < GRACE_MS / 1000 + 8
    wait_until(lambda: not [pid for pid in family if is_alive(pid)], 5, "the whole family to be gone")

    results = feed.of(ResultMessage)
    assert len(results) == len({result.dispatch for result in results}), "none is reported twice"
    outcomes = {result.dispatch: result.outcome for result in results}
    assert {outcomes[message.dispatch] for message in quick} == {"completed"}
    handed_back = {outcomes.get(message.dispatch, "waits in the stream") for message in [*long, *toil]}
    assert handed_back <= {"returned", "waits in the stream"}, "nothing counts as lost"
    assert Counter(outcomes.values())["returned"] >= SLOTS + 1
    for stream, handed in (("default", long), (STREAM, toil)):
        assert feed.pending(stream) == 0, "no lease is left"
        assert feed.left(stream) == sum(message.dispatch not in outcomes for message in handed), "the rest is there"
    assert rq_keys(feed) == []


def _hand_out_all(feed: Feed, tasks: list[tuple[str, object]]) -> list[TaskMessage]:
    """As `Feed.hand_out`, with a thousand in a round trip."""

    def stream(message: TaskMessage) -> str:
        return feed.namespace.of(message.instance).tasks("default")

    handed = [feed.message(task, argument) for task, argument in tasks]
    for first in range(0, len(handed), 1000):
        exchange(
            feed.link,
            [
                ("XADD", stream(message), f"{message.dispatch.split('-')[2]}-0", "m", messages.pack(message))
                for message in handed[first : first + 1000]
            ],
        )
    return handed
