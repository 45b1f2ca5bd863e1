"""The child's thread that speaks with the keeper."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from headrace_workers.pipe import (
    Begun,
    Configure,
    Decoder,
    Drain,
    Frame,
    Held,
    PipeError,
    Report,
    Retire,
    Revoked,
    Worn,
    encode,
)
from headrace_workers.reporter import EXIT_BROKEN, EXIT_ORPHANED, Reporter
from support.waiting import wait_until, wait_until_async


class Child:
    def __init__(self) -> None:
        self.held = [Held("key", ["1-0"], [True])]
        self.told: list[object] = []

    def snapshot(self) -> list[Held]:
        return self.held

    def revoke(self, places: list[tuple[int, str]]) -> None:
        self.told.append(places)

    def retire(self) -> None:
        self.told.append("retire")

    def drain(self, grace_ms: int | None = None) -> None:
        self.told.append(grace_ms)


class Keeper:
    """The other end."""

    def __init__(self) -> None:
        self.near, far = socket.socketpair()
        self.near.settimeout(5)
        self.left: list[int] = []
        self.gone = threading.Event()
        self.reporter = Reporter(far, self._leave)
        self._decoder = Decoder()
        self._far = far

    def _leave(self, status: int) -> None:
        self.left.append(status)
        self.gone.set()

    def say(self, frame: Frame) -> None:
        self.near.sendall(encode(frame))

    def hear(self) -> Frame:
        while True:
            frames = self._decoder.feed(self.near.recv(1))
            if frames:
                return frames[0]

    def close(self) -> None:
        self.near.close()
        self.gone.wait(5)
        self._far.close()


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    made = Keeper()
    yield made
    made.close()


def test_the_first_frame_configures_and_those_behind_it_are_kept(keeper: Keeper) -> None:
    keeper.near.sendall(encode(Configure("{}")) + encode(Drain(0)))
    assert keeper.reporter.configuration() == Configure("{}")
    keeper.reporter.start(60)
    wait_until(lambda: keeper.left, why="a drain before it holds anything ends it")
    assert keeper.left[0] == 0


def test_another_first_frame_is_refused(keeper: Keeper) -> None:
    keeper.say(Drain(0))
    with pytest.raises(PipeError):
        keeper.reporter.configuration()
    keeper.gone.set()


def test_a_keeper_that_is_gone_ends_the_child(keeper: Keeper) -> None:
    keeper.reporter.start(60)
    assert keeper.hear() == Report([], 0)
    keeper.near.close()
    wait_until(lambda: keeper.left, why="it leaves")
    assert keeper.left[0] == EXIT_ORPHANED


def test_a_reporter_that_breaks_down_ends_the_child(keeper: Keeper) -> None:
    keeper.reporter.start(60)
    keeper.near.sendall(b"\xff\xff\xff\xff")
    wait_until(lambda: keeper.left, why="it leaves")
    assert keeper.left[0] == EXIT_BROKEN


async def test_it_reports_what_is_held_and_passes_on_what_the_keeper_says(keeper: Keeper) -> None:
    child = Child()
    keeper.reporter.attach(asyncio.get_running_loop(), child)
    keeper.reporter.start(0.02)
    assert await asyncio.to_thread(keeper.hear) == Report(child.held, 0)
    keeper.reporter.begins("key", "2-0")
    keeper.reporter.worn("it is old")
    heard: list[Frame] = []
    while Worn("it is old") not in heard:
        heard.append(await asyncio.to_thread(keeper.hear))
    assert Begun("key", "2-0") in heard
    keeper.say(Revoked([(1, "1-0")]))
    keeper.say(Retire())
    keeper.say(Drain(7))
    await wait_until_async(lambda: len(child.told) == 3, why="all reach the loop")
    assert child.told == [[(1, "1-0")], "retire", 7]


async def test_a_loop_that_is_blocked_is_reported(keeper: Keeper) -> None:
    keeper.reporter.attach(asyncio.get_running_loop(), Child())
    keeper.reporter.start(0.01)
    while True:  # this blocks the loop, so it must show
        report = keeper.hear()
        assert isinstance(report, Report)
        if report.blocked_ms >= 50:
            break
    await asyncio.sleep(0)  # it answers again

    def answered() -> bool:
        report = keeper.hear()
        return isinstance(report, Report) and report.blocked_ms < 50

    await wait_until_async(answered, why="it is free again")
