"""The child loop: reads tasks from the streams for its work bench, and sees a drain through.

Its connections, clock, random and executor are injected and it starts no thread, so the simulator runs this very code
on a virtual-time event loop. `child_main` runs it in a real process.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple, Protocol

from headrace_broker import payloads, tasks
from headrace_broker.backoff import Backoff
from headrace_broker.clock import ServerClock
from headrace_broker.connection import AsyncLink, Connector, Reply
from headrace_broker.conversations import converse_async
from headrace_broker.errors import ServerError, ServerUnreachable
from headrace_broker.messages import TaskMessage
from headrace_broker.namespace import Namespace
from headrace_broker.shared_link import SharedLink
from headrace_broker.tasks import Delivery
from headrace_broker.values import Value

from .bench import Bench
from .executors import Executor
from .links import LastingLink
from .outbox import Outbox
from .pipe import Held as HeldEntries
from .rotation import Rotation
from .served import Served
from .slots import Place, Stop
from .wear import NO_LIMITS, Limits, Wear, resident_bytes

_log = logging.getLogger("headrace.worker")


@dataclass(frozen=True)
class ChildSettings:
    """`consumer` names this incarnation of the child in the consumer groups. `block_ms` bounds a blocking read, and
    with it how long a drain takes at least."""

    consumer: str
    concurrency: int = 32
    lease_ms: int = 10_000
    grace_ms: int = 20_000
    block_ms: int = 1000
    limits: Limits = NO_LIMITS


class WorkBench(Protocol):
    """What a child loop has its deliveries worked on by: a `Bench`, or the bridge's, whose jobs are RQ's."""

    @property
    def free(self) -> int: ...
    @property
    def unfinished(self) -> Sequence[Any]: ...
    @property
    def abandoned(self) -> bool: ...
    def places(self) -> frozenset[Place]: ...
    def snapshot(self) -> list[HeldEntries]: ...
    def receive(self, deliveries: Iterable[Delivery], /) -> None: ...
    def revoke(self, places: Iterable[Place], /) -> None: ...
    def stop(self, held: Any, why: Stop, /) -> None: ...
    def saved(self, places: list[Place], /) -> None: ...
    def close(self) -> None: ...


class Supplies(NamedTuple):
    """What a child loop lends a bench that was made for it. See `Bench`."""

    outbox: Outbox
    clock: ServerClock
    patience: float
    changed: asyncio.Event
    begins: Callable[[str, str], None]


class ChildLoop:
    """`run` returns when a drain is complete. Make it inside the event loop that runs it."""

    def __init__(
        self,
        settings: ChildSettings,
        served: Served,
        namespace: Namespace,
        connector: Connector,
        executor: Executor,
        *,
        monotonic: Callable[[], float],
        random: Random,
        begins: Callable[[str, str], None] = lambda key, entry: None,
        worn: Callable[[str], None] = lambda reason: None,
        resident: Callable[[], int] = resident_bytes,
        make_bench: Callable[[Supplies], WorkBench] | None = None,
    ) -> None:
        """`begins(key, entry)` is called before an entry begins that a snapshot called "not begun"; `worn(reason)`,
        once, when a successor should be started. `resident` gives the bytes of memory that the process takes.

        `make_bench` replaces the bench, and with it `executor`.
        """
        self._settings = settings
        self._namespace = namespace
        self._random = random
        self._executor = executor
        self._sources = tasks.sources(namespace.all_partitions, served.streams)
        self._by_key = {source.key.encode(): source for source in self._sources}
        self._rotation = Rotation(settings.consumer, self._sources, settings.block_ms)
        self._clock = ServerClock(monotonic)
        self._reads = LastingLink(connector, self._clock)
        self._writes = LastingLink(connector, self._clock)
        self._values = SharedLink(connector)
        self._changed = asyncio.Event()
        # A coroutine that is cancelled at its time-out must be reported well before the owner's guard: a lease later.
        self._patience = min(5.0, settings.lease_ms / 2000)
        self._tell_worn = worn
        self._wear = Wear(settings.limits, resident=resident, soon=self._ask_for_successor, out=self._be_worn)
        self._outbox = Outbox(
            self._writes,
            random,
            limit=max(256, 4 * settings.concurrency),
            saved=lambda places: self._bench.saved(places),
        )
        supplies = Supplies(self._outbox, self._clock, self._patience, self._changed, begins)
        self._bench: WorkBench = (
            make_bench(supplies)
            if make_bench is not None
            else Bench(
                settings.consumer,
                settings.concurrency,
                served.tasks,
                self._outbox,
                executor,
                self._clock,
                self._resolve,
                patience=self._patience,
                changed=self._changed,
                wear=self._wear,
                worn=self._wear_out,
                begins=begins,
            )
        )
        self._drain_by: float | None = None
        self.worn = False
        """It has asked for a successor."""

    @property
    def abandoned(self) -> bool:
        """Whether code of a task still runs, after `run` has returned."""
        return self._bench.abandoned

    def snapshot(self) -> list[HeldEntries]:
        """All that is held, by stream. May be called from another thread."""
        return self._bench.snapshot()

    def revoke(self, places: Iterable[Place]) -> None:
        """Stops these tasks, as far as they are held here."""
        self._bench.revoke(places)

    def drain(self, grace_ms: int | None = None) -> None:
        """Takes no more, hands back what is not begun, and lets the rest finish within the grace."""
        grace = self._settings.grace_ms if grace_ms is None else grace_ms
        self._end_by(self._clock.monotonic() + grace / 1000)

    def retire(self) -> None:
        """Takes no more, hands back what is not begun, and lets the rest finish, however long it takes."""
        self._end_by(math.inf)

    def _end_by(self, deadline: float) -> None:
        self._drain_by = deadline if self._drain_by is None else min(deadline, self._drain_by)
        self._bench.close()
        self._changed.set()

    def _ask_for_successor(self, why: str) -> None:
        if not self.worn:
            self.worn = True
            self._tell_worn(why)

    def _be_worn(self, why: str) -> None:
        """It has worked enough. What runs is none the worse for that, and may finish."""
        self._ask_for_successor(why)
        self.retire()

    def _wear_out(self, why: str) -> None:
        """Tasks that do not stop hold its slots, and might for ever: the others get the grace, no more."""
        self._ask_for_successor(why)
        self.drain()

    async def run(self) -> None:
        """Works until drained. What has a result by then is saved, if the server can be reached within the grace."""
        await self._until_connected()
        reader = asyncio.create_task(self._read(), name="headrace-reader")
        outbox = asyncio.create_task(self._outbox.run(), name="headrace-outbox")
        finish = asyncio.create_task(self._finish(reader), name="headrace-finish")
        weigh = asyncio.create_task(self._wear.watch(), name="headrace-wear")
        try:
            running = {reader, outbox, finish, weigh}
            while finish in running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for ended in done - {task for task in done if task.cancelled()}:
                    ended.result()
        finally:
            for part in (reader, outbox, finish, weigh):
                part.cancel()
            await asyncio.gather(reader, outbox, finish, weigh, return_exceptions=True)
            await self._reads.drop()
            await self._writes.drop()
            await self._values.close()
            self._executor.close()

    async def _until_connected(self) -> None:
        """Nothing begins before the server's clock is known."""
        backoff = Backoff(self._random)
        while True:
            try:
                await self._writes.get()
                return
            except (ServerUnreachable, ServerError) as error:
                await self._wait_for_server(backoff, error)

    # Reading.

    async def _read(self) -> None:
        backoff = Backoff(self._random)
        while self._drain_by is None and self._sources:  # all tasks may be for work-horses
            try:
                link = await self._reads.get()
                await self._adopt(link)
                backoff.reset()
                while self._drain_by is None:
                    free = 0 if self._outbox.full else self._bench.free
                    if free > 0:
                        await self._fetch(link, free)
                    else:
                        await self._wait(None)
            except (ServerUnreachable, ServerError) as error:
                await self._reads.drop()
                await self._wait_for_server(backoff, error)

    async def _adopt(self, link: AsyncLink) -> None:
        """Makes the groups, and takes what this consumer holds without knowing it: a reply was lost."""
        await converse_async(link, tasks.ensure_groups(self._namespace.keys, self._sources))
        # Noted before asking: what is settled while the answer is under way is known all the same.
        known = self._bench.places()
        pending = tasks.read_pending(
            self._settings.consumer, self._sources, lambda found: (found.source.partition.number, found.entry) in known
        )
        self._bench.receive(await converse_async(link, pending))

    async def _fetch(self, link: AsyncLink, free: int) -> None:
        if self._rotation.may_block:
            self._rotation.found()
            self._take(await link.exchange([self._rotation.block], timeout=self._settings.block_ms / 1000 + 5))
        else:
            self._take(await link.exchange(self._rotation.reads(free)))

    def _take(self, replies: list[Reply]) -> None:
        """Takes what the replies brought, even beside one that is an error. Raises `ServerError`."""
        refused: ServerError | None = None
        for reply in replies:
            if isinstance(reply, ServerError):
                refused = reply
            elif reply:
                self._rotation.found()
                self._bench.receive(tasks.parse(reply, self._by_key))
        if refused is not None:
            raise refused

    # Finishing.

    async def _finish(self, reader: asyncio.Task[None]) -> None:
        """Returns when a drain is complete."""
        while self._drain_by is None:
            await self._wait(None)
        # A read that is cut off may have brought entries nobody knows of; a blocked one ends by itself.
        await asyncio.wait((reader,), timeout=self._settings.block_ms / 1000 + 1)
        reader.cancel()
        while self._bench.unfinished and (left := self._left(self._drain_by)) > 0:
            await self._wait(left)
        for held in self._bench.unfinished:
            self._bench.stop(held, "returned")
        while self._bench.unfinished:
            await self._wait(self._patience)
        until = self._clock.monotonic() + self._patience
        while self._outbox.unsaved and (left := self._left(max(until, self._drain_by))) > 0:
            await self._wait(left)
        if self._outbox.unsaved:
            _log.warning("Results could not be saved in time; their tasks will run again.")

    def _left(self, deadline: float) -> float:
        return deadline - self._clock.monotonic()

    async def _wait(self, seconds: float | None) -> None:
        """For a change, or so many seconds. The caller checks what it waits for just before, and again."""
        self._changed.clear()
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _wait_for_server(self, backoff: Backoff, error: Exception) -> None:
        if backoff.failures in (0, 10):
            _log.warning("Waiting for the server: %s", error)
        await asyncio.sleep(backoff.next())

    async def _resolve(self, message: TaskMessage) -> Value:
        """The message's value with all it names, however long the server is away. Raises `MessageError`."""
        outputs = self._namespace.of(message.instance).outputs(message.incarnation)
        backoff = Backoff(self._random)
        while True:
            try:
                return await payloads.resolve(self._values, message.value, outputs)
            except (ServerUnreachable, ServerError) as error:
                await self._wait_for_server(backoff, error)
