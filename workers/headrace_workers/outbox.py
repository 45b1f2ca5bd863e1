"""Results on their way to the server: batched per partition, and kept until it has them.

A batch whose reply was lost is sent again, so the server may get a result twice; the engine drops the second, for its
token no longer holds the dispatch id (invariant 2). A commit that drops a result deletes the value it names, so
*each sending names a large value anew*: the second copy must not name the key that the first one's commit adopted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import NamedTuple

from headrace_broker import messages, payloads, tasks
from headrace_broker.backoff import Backoff
from headrace_broker.connection import AsyncLink, Command
from headrace_broker.errors import ServerError, ServerUnreachable
from headrace_broker.keys import PartitionKeys
from headrace_broker.messages import GarbageMessage, ResultMessage, StartedMessage
from headrace_broker.tasks import Settlement, Source

from .links import LastingLink

_BATCH = 512
_BATCH_BYTES = 8 * 1024 * 1024
_KEPT_BYTES = 64 * 1024 * 1024

_log = logging.getLogger("headrace.worker")


class Unsaved(NamedTuple):
    """One thing to send: either `packed`, or a result and the large payload that is named when it is sent."""

    source: Source
    entry: str
    size: int
    packed: bytes | None
    settles: bool = True
    result: ResultMessage | None = None
    payload: bytes = b""


class Outbox:
    """Sends what is posted. `saved` is called for each entry that the server has settled."""

    def __init__(
        self, link: LastingLink, random: Random, *, limit: int, saved: Callable[[list[tuple[int, str]]], None]
    ) -> None:
        self._link = link
        self._random = random
        self._limit = limit
        self._saved = saved
        self._queues: dict[PartitionKeys, deque[Unsaved]] = {}
        self._count = 0
        self._bytes = 0
        self._failing = False
        self._posted = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether to fetch no more work: too much is unsaved, or the server would not take the last batch."""
        return self._failing or self._count >= self._limit or self._bytes >= _KEPT_BYTES

    def result(self, source: Source, entry: str, message: ResultMessage, payload: bytes | None = None) -> None:
        """Posts a result; with `payload`, a value too large to be inline."""
        if payload is None:
            self._post(source, entry, messages.pack(message))
        else:
            self._add(Unsaved(source, entry, len(payload), None, True, message, payload))

    def garbage(self, source: Source, entry: str, raw: bytes, reason: str) -> None:
        """Posts what was found in a task stream and is no task; takes it out."""
        message = GarbageMessage(source.key, entry, raw, reason)
        self._post(source, entry, messages.pack(message))

    def started(self, source: Source, entry: str, message: StartedMessage) -> None:
        """Posts that an attempt began; its entry stays."""
        self._post(source, entry, messages.pack(message), settles=False)

    def _post(self, source: Source, entry: str, packed: bytes, *, settles: bool = True) -> None:
        self._add(Unsaved(source, entry, len(packed), packed, settles))

    def _add(self, unsaved: Unsaved) -> None:
        queue = self._queues.get(unsaved.source.partition)
        if queue is None:
            queue = self._queues[unsaved.source.partition] = deque()
        queue.append(unsaved)
        self._count += 1
        self._bytes += unsaved.size
        self._posted.set()

    @property
    def unsaved(self) -> int:
        """How much of what was posted the server does not have yet."""
        return self._count

    async def run(self) -> None:
        """Sends, until cancelled."""
        backoff = Backoff(self._random)
        while True:
            await self._posted.wait()
            try:
                await self._send(await self._link.get())
                backoff.reset()
                self._failing = False
            except (ServerUnreachable, ServerError) as error:
                self._failing = True
                if backoff.failures in (0, 10):
                    _log.warning("%d results wait for the server: %s", self._count, error)
                await self._link.drop()
                await asyncio.sleep(backoff.next())

    async def _send(self, link: AsyncLink) -> None:
        """One exchange: a transaction for each partition that has something. Raises `ServerError` for any refused."""
        commands: list[Command] = []
        batches: list[tuple[PartitionKeys, list[Unsaved], int, int]] = []
        for partition, queue in self._queues.items():
            if queue:
                batch = _take(queue)
                first = len(commands)
                commands += tasks.settle(partition, [self._settlement(unsaved) for unsaved in batch])
                batches.append((partition, batch, first, len(commands)))
        replies = await link.exchange(commands)
        refused: ServerError | None = None
        for partition, batch, first, end in batches:
            try:
                tasks.check_settled(replies[first:end])
            except ServerError as error:
                refused = error
            else:
                self._done(self._queues[partition], batch)
        if not self._count:
            self._posted.clear()
        if refused is not None:
            raise refused

    def _settlement(self, unsaved: Unsaved) -> Settlement:
        source, entry, _, packed, settles, result, payload = unsaved
        if result is None:
            return Settlement(packed, source if settles else None, entry)
        name = f"{self._random.getrandbits(72):018x}"
        stored = payloads.store(payload, lambda: source.partition.value(result.incarnation, name))
        return Settlement(messages.pack(result._replace(value=stored.value)), source, entry, stored.write)

    def _done(self, queue: deque[Unsaved], batch: list[Unsaved]) -> None:
        for unsaved in batch:
            queue.popleft()
            self._bytes -= unsaved.size
        self._count -= len(batch)
        self._saved([(unsaved.source.partition.number, unsaved.entry) for unsaved in batch if unsaved.settles])


def _take(queue: Iterable[Unsaved]) -> list[Unsaved]:
    """The first of the queue, as much as one transaction should hold; at least one."""
    batch: list[Unsaved] = []
    size = 0
    for unsaved in queue:
        if batch and (len(batch) == _BATCH or size + unsaved.size > _BATCH_BYTES):
            break
        batch.append(unsaved)
        size += unsaved.size
    return batch
