"""What an owner asks for now and then: which task streams there are, how long they are, and which have a live worker.

It also wakes instances whose definition has come. The owner of partition 0 trims the raw signal stream to the lowest
cursor of all partitions (DESIGN 5).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, cast

from headrace_broker.commit import ORIGIN
from headrace_broker.conversations import Conversation, ask
from headrace_broker.errors import MessageError, ServerError
from headrace_broker.ids import entry_key
from headrace_broker.keys import Keys
from headrace_broker.workers import live_workers

from .awaiting import Awaiting
from .condition import texts
from .inbox import after

log = logging.getLogger(__name__)

PERIOD_SECONDS: Final = 1.0
SIGNALS_LIMIT: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Found:
    """`lengths` by partition and stream: tasks not settled. `live`: streams that a live worker serves."""

    lengths: Mapping[int, Mapping[str, int]]
    live: Set[str]


class Survey:
    """When to ask, and how."""

    def __init__(self, keys: Keys, partitions: int, monotonic: Callable[[], float]) -> None:
        self._keys = keys
        self._partitions = partitions
        self._trimmed = ORIGIN
        self._awaiting = Awaiting(keys)
        self._monotonic = monotonic
        self.next = monotonic()

    @property
    def due(self) -> bool:
        return self._monotonic() >= self.next

    def take(self, owned: Sequence[int]) -> Conversation[Found]:
        self.next = self._monotonic() + PERIOD_SECONDS
        workers = yield from live_workers(self._keys)
        (members,) = yield from ask(("SMEMBERS", self._keys.queues))
        streams = texts(cast("list[bytes]", members))
        lengths: dict[int, dict[str, int]] = {number: {} for number in owned}
        if streams:
            wanted = [(number, stream) for number in owned for stream in streams]
            replies = yield [("XLEN", self._keys.partition(n).tasks(stream)) for n, stream in wanted]
            for (number, stream), length in zip(wanted, replies, strict=True):
                # One of another type counts as empty: who judges its leases finds out.
                lengths[number][stream] = 0 if isinstance(length, ServerError) else int(length)
        try:
            if 0 in owned:
                yield from self._trim_signals()
            yield from self._awaiting.look(owned)
        except (ServerError, MessageError) as error:  # what was counted holds: leases are judged by it all the same
            log.warning("Raw signals were not trimmed, or definitions not looked for: %s", error)
        return Found(lengths, frozenset(stream for worker in workers for stream in worker.streams))

    def _trim_signals(self) -> Conversation[None]:
        """Outside commits, so that it works whatever the partitions do; never past what every partition has read,
        but for the limit, which holds even if a partition has not been owned for long."""
        yield from ask(("XTRIM", self._keys.signals, "MAXLEN", "~", SIGNALS_LIMIT))
        cursors = yield from ask(*(("HGET", self._keys.partition(n).meta, "signals") for n in range(self._partitions)))
        if any(cursor is None for cursor in cursors):
            return
        try:
            lowest = min((cursor.decode() for cursor in cast("list[bytes]", cursors)), key=entry_key)
        except ValueError as error:
            raise MessageError(f"a partition's cursor cannot be read: {error}") from None
        if lowest != self._trimmed:
            yield from ask(("XTRIM", self._keys.signals, "MINID", after(lowest)))
            self._trimmed = lowest
