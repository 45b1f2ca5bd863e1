"""Which streams a child reads next.

COUNT holds for each stream, so a read of all streams brings up to their number times COUNT. A child reads without
waiting, each stream with its share of the free slots, and blocks only when every stream was found empty in a row: a
blocked read names one entry only, or it would bring more than there are slots for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from headrace_broker import tasks
from headrace_broker.connection import Command
from headrace_broker.tasks import Source


class Rotation:
    """The next reads, given the free slots. `sources` are in partition order."""

    def __init__(self, consumer: str, sources: Sequence[Source], block_ms: int) -> None:
        self._consumer = consumer
        self._sources = tuple(sources)
        self._turn = 0
        self._empty = 0
        self._all: dict[int, list[Command]] = {}
        self.block = tasks.read_blocking(consumer, self._sources, block_ms)

    @property
    def may_block(self) -> bool:
        return self._empty >= len(self._sources)

    def reads(self, free: int) -> list[Command]:
        """Reads that bring at most `free` entries (> 0), one command for each partition."""
        total = len(self._sources)
        if free >= total:
            share = free // total
            self._empty += total
            commands = self._all.get(share)
            if commands is None:
                commands = self._all[share] = self._commands(self._sources, share)
            return commands
        some = [self._sources[(self._turn + step) % total] for step in range(free)]
        self._turn = (self._turn + free) % total
        self._empty += free
        return self._commands(some, 1)

    def found(self) -> None:
        """Something came: read on without blocking."""
        self._empty = 0

    def _commands(self, wanted: Sequence[Source], count: int) -> list[Command]:
        ordered = sorted(wanted, key=lambda source: source.partition.number)
        groups = groupby(ordered, key=lambda source: source.partition.number)
        return [tasks.read(self._consumer, list(group), count) for _, group in groups]
