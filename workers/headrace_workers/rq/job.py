"""One delivery as an RQ job, and what is known of it. No I/O."""

from __future__ import annotations

import asyncio

from headrace_broker.messages import TaskMessage
from headrace_broker.tasks import Source
from headrace_workers.slots import Place, Stop


class Job:
    """Two threads look at it: each writes one of `reported` and `begun`, before it reads the other (see `slots`)."""

    def __init__(self, place: Place, source: Source, message: TaskMessage) -> None:
        self.place = place
        self.source = source
        self.message = message
        self.reported = False
        """The keeper was told that it is not begun."""
        self.enqueued = False
        self.taken = False
        """It could not be withdrawn: an rq worker has it."""
        self.begun = False
        self.began = 0
        self.worker = ""
        """The rq worker whose horse has begun it, if that is one of ours."""
        self.ending = False
        """Its horse sends the result: there is nothing to stop any more."""
        self.over = False
        """Its horse is dead, or there will be none: only keys in RQ may be left."""
        self.posted = False
        """Its result is in the outbox."""
        self.stopped: Stop | None = None
        self.stop_sent: float | None = None
        self.strikes = 0
        """Rounds in a row in which it was neither queued nor begun."""
        self.timer: asyncio.TimerHandle | None = None

    @property
    def id(self) -> str:
        return self.message.dispatch

    @property
    def entry(self) -> str:
        return self.place[1]

    @property
    def queued(self) -> bool:
        """Whether it is likely to be in RQ's queue."""
        return self.enqueued and not (self.begun or self.taken or self.over)

    def disarm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
