"""The bridge's work bench: deliveries as RQ jobs, from the reading of an entry until nothing is left of the job.

    fresh ──▶ queued ──▶ begun ──▶ ending ──▶ settled, by the horse itself
      │          │          └── stopped (timed out, revoked, returned), or lost with its horse or rq worker
      └──────────┴── withdrawn from RQ's queue, and handed back if it was not revoked

It is to the bridge what `headrace_workers.bench` is to a child. It talks to no server: what should become of a job is
noted in it, and `upkeep` brings that about in RQ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from headrace_broker import messages
from headrace_broker.clock import ServerClock
from headrace_broker.errors import MessageError, TaskTimedOut
from headrace_broker.ids import DispatchId
from headrace_broker.messages import Failure, Outcome, TaskMessage
from headrace_broker.tasks import Delivery
from headrace_workers import reports
from headrace_workers.outbox import Outbox
from headrace_workers.pipe import Held as HeldEntries
from headrace_workers.slots import Place, Stop

from .job import Job
from .words import Begun, Died, Ending, Settled, Up, Word

_NOT_STOPPED: Final = "It did not stop, and its process was killed."


class RqBench:
    """See `headrace_workers.child.WorkBench`. `due` is set when there is something to do in RQ."""

    def __init__(
        self,
        worker: str,
        slots: int,
        outbox: Outbox,
        clock: ServerClock,
        *,
        patience: float,
        changed: asyncio.Event,
        begins: Callable[[str, str], None],
    ) -> None:
        """`patience` (seconds) is what a horse gets to end by itself after its time-out."""
        self._worker = worker
        self._slots = slots
        self._outbox = outbox
        self._clock = clock
        self._patience = patience
        self._changed = changed
        self._begins = begins
        self._loop = asyncio.get_running_loop()
        self._held: dict[Place, Job | None] = {}
        """Until the server has the result. None: garbage."""
        self.jobs: dict[str, Job] = {}
        """Until RQ has nothing of it left; these take the slots."""
        self.litter: set[str] = set()
        """Ids of jobs that have ended and may have left keys in RQ."""
        self.dead: set[str] = set()
        """Rq workers that have died and are still in RQ's books."""
        self.due = asyncio.Event()
        self.closed = False

    # What a child loop asks of a bench.

    @property
    def free(self) -> int:
        return 0 if self.closed else max(0, self._slots - len(self.jobs))

    @property
    def unfinished(self) -> list[Job]:
        return [job for job in self._held.values() if job is not None and not job.posted]

    @property
    def abandoned(self) -> bool:
        """Never: a process can be killed."""
        return False

    def places(self) -> frozenset[Place]:
        return frozenset(self._held)

    def snapshot(self) -> list[HeldEntries]:
        """All that is held, by stream. May be called from another thread."""
        found: dict[str, HeldEntries] = {}
        for job in list(self._held.values()):
            if job is None:
                continue
            row = found.setdefault(job.source.key, HeldEntries(job.source.key, [], []))
            if not job.begun:
                job.reported = True  # before the second look at `begun`
            row.entries.append(job.entry)
            row.begun.append(job.begun)
        return list(found.values())

    def receive(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            place = (delivery.source.partition.number, delivery.entry)
            if place not in self._held:
                self._receive(delivery, place)

    def revoke(self, places: Iterable[Place]) -> None:
        for place in places:
            job = self._held.get(place)
            if job is not None and not job.ending:  # what is ending has just been settled by its horse
                self.stop(job, "revoked")

    def close(self) -> None:
        """Has everything withdrawn that no rq worker has taken yet."""
        self.closed = True
        self.due.set()

    def stop(self, job: Job, why: Stop) -> None:
        if job.stopped is not None or job.posted or job.id not in self.jobs:
            return
        job.stopped = why
        job.disarm()
        if why == "revoked":
            self._forget(job)
        elif why == "returned":
            self._post(job, "returned")
        else:
            text = f"{reports.time_out(job.message)} {_NOT_STOPPED}"
            self._post(job, "timed_out", Failure(TaskTimedOut.__name__, text))
        self.due.set()

    def saved(self, places: list[Place]) -> None:
        for place in places:
            self._held.pop(place, None)
        self._changed.set()

    # Deliveries.

    def _receive(self, delivery: Delivery, place: Place) -> None:
        source, entry, raw = delivery
        try:
            message = messages.expect(messages.unpack(raw or b""), TaskMessage)
            if DispatchId.parse(message.dispatch).entry != entry:
                raise MessageError(f"Dispatch {message.dispatch} cannot have the entry {entry}.")
        except MessageError as error:
            self._held[place] = None
            self._outbox.garbage(source, entry, raw or b"", str(error))
            return
        job = self._held[place] = Job(place, source, message)
        if self.closed:
            self._post(job, "returned")
        else:
            self.jobs[job.id] = job
            self.due.set()

    def _post(self, job: Job, outcome: Outcome, failure: Failure | None = None) -> None:
        job.posted = True
        job.disarm()
        result = reports.ended(
            job.message,
            outcome,
            job.worker or self._worker,
            began=job.began,
            duration_ms=max(0, self._clock.now() - job.began) if job.begun else 0,
            failure=failure,
        )
        self._outbox.result(job.source, job.entry, result)

    def _forget(self, job: Job) -> None:
        """There is nothing to report of it."""
        job.disarm()
        self._held.pop(job.place, None)
        self._changed.set()

    # What horses and rq workers tell.

    def heard(self, worker: str, word: Word) -> None:
        match word:
            case Up():
                pass
            case Begun(dispatch):
                if job := self.jobs.get(dispatch):
                    self.begin(job, worker)
            case Ending(dispatch):
                if job := self.jobs.get(dispatch):
                    job.ending = True
                    job.disarm()
            case Settled(dispatch):
                if (job := self.jobs.get(dispatch)) and not job.stopped:
                    self._forget(job)
                    self.release(job)
            case Died(dispatch, _):
                self.lose(dispatch)

    def begin(self, job: Job, worker: str) -> None:
        """Code of the task runs, in a horse of `worker` ("": of one that is none of ours)."""
        job.worker = worker
        job.begun = True
        job.began = self._clock.now()
        if job.reported:
            self._begins(job.source.key, job.entry)
        if job.stopped or job.posted:
            self.due.set()
        elif job.message.timeout_ms:
            seconds = job.message.timeout_ms / 1000 + self._patience
            job.timer = self._loop.call_later(seconds, self.stop, job, "timed_out")

    def lose(self, dispatch: str) -> None:
        """The horse of that job is dead, or none will ever come: what was not begun is handed back."""
        self.litter.add(dispatch)
        self.due.set()
        job = self.jobs.get(dispatch)
        if job is None:
            return
        job.over = True
        if not job.posted and job.stopped is None:
            self._post(job, "lost" if job.begun else "returned")

    def died(self, worker: str) -> None:
        """That rq worker is dead, and its horse with it."""
        self.dead.add(worker)
        self.due.set()
        for job in list(self.jobs.values()):
            if job.worker == worker:
                self.lose(job.id)

    # What upkeep has done.

    def withdrawn(self, job: Job) -> None:
        """It will not run: RQ has nothing of it any more."""
        job.over = True
        if not job.posted and job.stopped is None:
            self._post(job, "returned")
        self.release(job)

    def release(self, job: Job) -> None:
        """Frees its slot."""
        job.disarm()
        self.jobs.pop(job.id, None)
        self._changed.set()
