"""The deliveries a child holds, and how many more it may take. No I/O, no clock.

A delivery is *held* from its reading until the server has its result. It is *waiting* until it begins; a child reads no
more than it has slots for, but a blocked read of many streams may bring a few more at once. It takes a slot while its
code runs, even when nobody waits for it any more (a thread cannot be stopped).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from headrace_broker.messages import TaskMessage
from headrace_broker.tasks import Source

if TYPE_CHECKING:  # keepers use this module, and run no user code
    from .attempt import Attempt

Place = tuple[int, str]
"""(partition, entry): names a delivery among those of one child, and of one keeper."""

Stop = Literal["timed_out", "revoked", "returned"]


class Held:
    """One delivery. Two threads look at it: each writes one of `reported` and `begun`, before it reads the other."""

    __slots__ = (
        *("alone", "attempt", "began", "begun", "entry", "message", "place", "posted"),
        *("reported", "running", "source", "stopped", "timer"),
    )

    def __init__(self, place: Place, source: Source, message: TaskMessage) -> None:
        self.place = place
        self.source = source
        self.entry = place[1]
        self.message = message
        self.alone = message.alone
        self.reported = False
        """The keeper was told that it is not begun."""
        self.begun = False
        self.began = 0
        self.posted = False
        """Its result is in the outbox; whatever its code still does is of no interest."""
        self.stopped: Stop | None = None
        self.attempt: Attempt | None = None
        self.running: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def disarm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Slots:
    """Held, waiting and running deliveries of one child."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.held: dict[Place, Held | None] = {}
        """None: garbage, on its way out."""
        self.waiting: dict[Place, Held] = {}
        self.running: dict[Place, Held] = {}
        self._used = 0
        self._alone_waiting = 0
        self._alone_runs = False

    @property
    def free(self) -> int:
        """How many deliveries may be fetched now. None beside one that must run alone."""
        if self._alone_waiting or self._alone_runs:
            return 0
        return max(0, self.total - self._used - len(self.waiting))

    @property
    def idle(self) -> bool:
        """Whether no code of a task runs."""
        return self._used == 0

    def wait(self, held: Held) -> None:
        self.waiting[held.place] = held
        self._alone_waiting += held.alone

    def next(self) -> Held | None:
        """The next to begin, which takes a slot; first come, first served."""
        if self._alone_runs or self._used >= self.total or not self.waiting:
            return None
        held = next(iter(self.waiting.values()))
        if held.alone and self._used:
            return None
        self.give_up(held)
        self._alone_runs = held.alone
        self._used += 1
        self.running[held.place] = held
        return held

    def give_up(self, held: Held) -> bool:
        """Takes it out of those that wait; False if it does not."""
        if self.waiting.pop(held.place, None) is None:
            return False
        self._alone_waiting -= held.alone
        return True

    def release(self, held: Held) -> None:
        """Its code has ended."""
        self._used -= 1
        self.running.pop(held.place, None)
        if held.alone:
            self._alone_runs = False
