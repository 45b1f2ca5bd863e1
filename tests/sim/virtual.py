"""Virtual time: an event loop whose waits take no time, and one clock for it, the server and everybody else."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from unittest import mock

START = 1_800_000_000.0
"""Where the simulated world begins, in seconds since the epoch."""


_TICK = 1e-6
"""The least that time moves: less would be lost in a float's last digits, and the loop would spin."""


class VirtualClock:
    """Moved only by whoever waits."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        """Seconds since the world began."""
        return self._now

    def time(self) -> float:
        """Seconds since the epoch."""
        return START + self._now

    def advance(self, seconds: float) -> None:
        self._now += max(seconds, _TICK)


class _JumpingSelector(selectors.SelectSelector):
    """Nothing ever comes from outside, so a wait for it is a jump of the clock."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("the simulated world has come to a stop: nobody waits for a time")
        if timeout > 0:
            self._clock.advance(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Deterministic: one thread, callbacks in their order, timers by the virtual clock."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_JumpingSelector(clock))
        self._virtual = clock

    def time(self) -> float:
        return self._virtual.monotonic()


@contextmanager
def server_time(clock: VirtualClock) -> Generator[None]:
    """The in-process server takes its time (TIME, TTLs, ids of entries, idle times) from the virtual clock."""
    with mock.patch.object(time, "time", clock.time):
        yield


def run(clock: VirtualClock, main: Any) -> Any:
    """Runs a coroutine to its end on virtual time."""
    with server_time(clock), asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(main)
