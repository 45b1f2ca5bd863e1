"""Brings about in RQ what the bench has noted in its jobs, turn by turn; and looks after what nobody tells it.

A turn may fail at any point: nothing is marked as done before it is, and all of it may be done twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, Final

from headrace_broker.backoff import Backoff
from headrace_broker.errors import ServerError, ServerUnreachable
from headrace_workers.executors import Executor

from .bench import RqBench
from .job import Job
from .jobs import Jobs, NewJob, View

_ROUND_SECONDS: Final = 0.5
_SOON_SECONDS: Final = 0.02
"""When to look again for a job that is about to end."""
_STRIKES: Final = 4
"""So many rounds may pass between RQ's queue and the first word of a horse."""
_STOP_SECONDS: Final = 2.0
"""After which an rq worker that does not stop its horse is killed itself."""

_log = logging.getLogger("headrace.worker")


class Upkeep:
    """`kill(worker)` ends one of our rq workers; `emptied` is called once the bench is closed and everything that was
    left in RQ's queue is withdrawn."""

    def __init__(
        self,
        bench: RqBench,
        jobs: Jobs,
        executor: Executor,
        random: Random,
        *,
        kill: Callable[[str], None],
        emptied: Callable[[], None],
    ) -> None:
        self._bench = bench
        self._rq = jobs
        self._executor = executor
        self._random = random
        self._kill = kill
        self._emptied = emptied
        self._is_emptied = False
        self._loop = asyncio.get_running_loop()
        self._round_due = self._loop.time() + _ROUND_SECONDS

    async def run(self) -> None:
        """Works until cancelled."""
        backoff = Backoff(self._random)
        while True:
            try:
                await self._wait()
                await self._turn()
                backoff.reset()
            except (ServerUnreachable, ServerError) as error:
                if backoff.failures in (0, 10):
                    _log.warning("Waiting for RQ's server: %s", error)
                await asyncio.sleep(backoff.next())
                self._bench.due.set()

    async def clean(self) -> None:
        """A last turn, when every rq worker is gone. Raises `ServerUnreachable` and `ServerError`."""
        for job in self._bench.jobs.values():
            self._bench.litter.add(job.id)
            job.over = True
        await self._bury()
        await self._do(self._rq.discard, sorted(self._bench.litter))

    async def _do(self, what: Callable[..., Any], *arguments: Any) -> Any:
        return await self._executor.submit(partial(what, *arguments))

    async def _wait(self) -> None:
        bench = self._bench
        seconds = self._round_due - self._loop.time()
        if bench.litter or any(job.stop_sent is not None for job in bench.jobs.values()):
            seconds = min(seconds, _SOON_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await bench.due.wait()
        bench.due.clear()

    async def _turn(self) -> None:
        await self._enqueue()
        await self._withdraw()
        await self._stop()
        await self._bury()
        await self._sweep()
        if self._loop.time() >= self._round_due:
            await self._look()
            self._round_due = self._loop.time() + _ROUND_SECONDS

    def _select(self, which: Callable[[Job], bool]) -> list[Job]:
        return [job for job in self._bench.jobs.values() if which(job)]

    async def _enqueue(self) -> None:
        for job in self._select(lambda job: not job.enqueued and (job.stopped is not None or self._bench.closed)):
            self._bench.withdrawn(job)
        fresh = self._select(lambda job: not job.enqueued)
        if fresh:
            new = [NewJob(job.message, job.source.stream, job.source.partition.number) for job in fresh]
            for job in fresh:
                job.enqueued = True  # a horse may speak of it before we hear that it was queued
            try:
                await self._do(self._rq.enqueue, new)
            except (ServerUnreachable, ServerError):
                for job in fresh:
                    job.enqueued = job.begun or job.ending
                raise

    async def _withdraw(self) -> None:
        wanted = self._select(lambda job: job.queued and (job.stopped is not None or self._bench.closed))
        if wanted:
            removed = await self._do(self._rq.withdraw, [(job.source.stream, job.id) for job in wanted])
            for job in wanted:
                if job.id in removed:
                    self._bench.withdrawn(job)
                else:
                    job.taken = True
        if self._bench.closed and not self._is_emptied:
            self._is_emptied = True
            self._emptied()

    async def _stop(self) -> None:
        """Has horses killed; when one is dead, RQ's job has ended, which `_sweep` finds."""
        now = self._loop.time()
        wanted = self._select(lambda job: job.stopped is not None and job.begun and not job.over)
        fresh = [job for job in wanted if job.stop_sent is None]
        if fresh:
            await self._do(self._rq.stop, [job.id for job in fresh])
        for job in wanted:
            if job.stop_sent is None:
                job.stop_sent = now
            elif now - job.stop_sent > _STOP_SECONDS:
                job.stop_sent = now
                if job.worker:
                    self._kill(job.worker)
                else:
                    await self._do(self._rq.stop, [job.id])

    async def _bury(self) -> None:
        for worker in sorted(self._bench.dead):
            for dispatch in await self._do(self._rq.bury, worker):
                self._bench.lose(dispatch)
            self._bench.dead.discard(worker)

    async def _sweep(self) -> None:
        bench = self._bench
        asked = bench.litter | {job.id for job in bench.jobs.values() if job.stop_sent is not None}
        if asked:
            for dispatch in await self._do(self._rq.sweep, sorted(asked)):
                bench.litter.discard(dispatch)
                if (job := bench.jobs.get(dispatch)) is not None:
                    job.over = True
                    bench.release(job)

    async def _look(self) -> None:
        """Finds out what no horse of ours will tell: jobs that vanished, or that rq workers of others have begun."""
        asked = self._select(lambda job: job.enqueued and not (job.over or job.worker or job.ending))
        if not asked:
            return
        views: dict[str, View] = await self._do(self._rq.look, [(job.source.stream, job.id) for job in asked])
        for job in asked:
            if job.worker or job.ending or job.over or job.id not in self._bench.jobs:
                continue  # it spoke meanwhile
            if self._is_lost(job, views[job.id]):
                await self._do(self._rq.discard, [job.id])
                self._bench.lose(job.id)
                self._bench.release(job)

    def _is_lost(self, job: Job, view: View) -> bool:
        match view.where:
            case "queued":
                job.strikes = 0
                job.taken = False
            case "started" if view.alive:
                job.strikes = 0
                if not job.begun:
                    self._bench.begin(job, "")
            case "gone" if job.stopped is not None:
                return True
            case _:
                job.strikes += 1
        return job.strikes >= _STRIKES
