"""The main of a bridge: `python -m headrace_workers.rq.bridge_main FD PARENT`. Started by keepers only.

To its keeper it is one more child: it reports what it holds, hears what is revoked, and drains. It runs no user code.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from random import Random, SystemRandom
from typing import Any, Final

from headrace_broker.backoff import Backoff, Waiting
from headrace_broker.connection import Server
from headrace_broker.errors import ServerError, ServerUnreachable
from headrace_broker.keys import Keys
from headrace_broker.namespace import Namespace
from headrace_workers.child import ChildLoop, ChildSettings, Supplies
from headrace_workers.cradle import begin
from headrace_workers.executors import Executor, Threads
from headrace_workers.pipe import Ready
from headrace_workers.reporter import Reporter
from headrace_workers.served import Served

from .bench import RqBench
from .jobs import Jobs, queue_name
from .stable import Stable
from .upkeep import Upkeep

SLOTS_PER_WORKER: Final = 3
_LEAST_SLOTS: Final = 4
_PATIENCE: Final = 1.0
_CLEAN_SECONDS: Final = 5.0

_log = logging.getLogger("headrace.worker")


@dataclass(frozen=True)
class BridgeOptions:
    """What a keeper tells its bridge. Crosses the pipe as JSON. `keeper` is how the names of its bridges begin."""

    url: str
    rq_url: str
    namespace: str
    partitions: int
    targets: list[str]
    streams: list[str]
    tasks: list[str]
    keeper: str
    consumer: str
    workers: int
    lease_ms: int
    grace_ms: int
    log_level: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def environment(self) -> dict[str, str]:
        """What rq workers and horses go by."""
        queues = sorted({queue_name(self.namespace, stream) for stream in self.streams})
        return {
            "HEADRACE_URL": self.url,
            "HEADRACE_RQ_URL": self.rq_url,
            "HEADRACE_NAMESPACE": self.namespace,
            "HEADRACE_TARGETS": json.dumps(self.targets),
            "HEADRACE_RQ_QUEUES": json.dumps(queues),
            "HEADRACE_LOG_LEVEL": str(self.log_level),
        }


def main(arguments: list[str]) -> int:
    reporter, options = begin(arguments, BridgeOptions)
    asyncio.run(Bridge(options, reporter).run())
    return 0


class Bridge:
    """Make it anywhere, run it once."""

    def __init__(self, options: BridgeOptions, reporter: Reporter) -> None:
        self._options = options
        self._reporter = reporter
        self._jobs = Jobs(options.rq_url, options.namespace, options.streams, options.lease_ms)
        self._random = SystemRandom()

    async def run(self) -> None:
        """Works until drained. What is held is settled or handed back then, and no process and no RQ key is left."""
        options = self._options
        rq = Threads(1)
        await self._tidy(rq)
        self._stable = Stable(
            options.workers,
            options.consumer,
            options.environment(),
            self._random,
            heard=lambda worker, word: self._bench.heard(worker, word),
            died=lambda worker: self._bench.died(worker),
        )
        loop = ChildLoop(
            ChildSettings(options.consumer, self._slots, options.lease_ms, options.grace_ms),
            Served({}, tuple(options.streams)),
            Namespace(Keys(options.namespace), options.partitions),
            Server(options.url),
            Threads(1),
            monotonic=time.monotonic,
            random=self._random,
            begins=self._reporter.begins,
            make_bench=self._make_bench,
        )
        upkeep = Upkeep(self._bench, self._jobs, rq, self._random, kill=self._stable.kill, emptied=self._stable.retire)
        keeping = asyncio.create_task(self._stable.run(), name="headrace-stable")
        caring = asyncio.create_task(upkeep.run(), name="headrace-upkeep")
        await _unless_dead(self._stable.up(), keeping)
        self._reporter.attach(asyncio.get_running_loop(), loop)
        self._reporter.tell(Ready(options.streams, options.tasks, [], []))
        await _unless_dead(loop.run(), caring)
        caring.cancel()
        await asyncio.gather(caring, return_exceptions=True)
        await self._stable.close()
        await keeping
        with contextlib.suppress(ServerUnreachable, ServerError, TimeoutError):
            async with asyncio.timeout(_CLEAN_SECONDS):
                await upkeep.clean()
        rq.close()
        self._jobs.close()

    @property
    def _slots(self) -> int:
        return max(_LEAST_SLOTS, SLOTS_PER_WORKER * self._options.workers)

    def _make_bench(self, supplies: Supplies) -> RqBench:
        self._bench = RqBench(
            self._options.consumer,
            self._slots,
            supplies.outbox,
            supplies.clock,
            patience=min(_PATIENCE, supplies.patience),
            changed=supplies.changed,
            begins=supplies.begins,
        )
        return self._bench

    async def _tidy(self, rq: Executor) -> None:
        """Removes what an earlier bridge of this keeper left, however long RQ's server is away."""
        backoff = Backoff(Random())
        waiting = Waiting(_log, "RQ's server")
        while True:
            try:
                await rq.submit(lambda: self._jobs.tidy(f"{self._options.keeper}."))
                return
            except (ServerUnreachable, ServerError) as error:
                waiting.say(error)
                await asyncio.sleep(backoff.next())


async def _unless_dead(work: Coroutine[Any, Any, None], needed: asyncio.Task[None]) -> None:
    """Awaits `work`; raises what `needed` dies of meanwhile."""
    task = asyncio.ensure_future(work)
    await asyncio.wait((task, needed), return_when=asyncio.FIRST_COMPLETED)
    if needed.done() and not task.done():
        task.cancel()
        needed.result()
    await task


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
