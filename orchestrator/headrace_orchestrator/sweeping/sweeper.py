"""The sweeper of one orchestrator: looks for what is due, and deletes it in slices that delay nothing else.

It remembers only what is left to do; losing that costs the time until the next look. Nothing here is a transaction, so
it works while the server is out of memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

from headrace_broker.connection import Command
from headrace_broker.conversations import Conversation, ask
from headrace_broker.deletion import forget, free
from headrace_broker.instances import retained_class
from headrace_broker.keys import RETAINED_CLASSES, Keys, RetainedClass
from headrace_broker.registry import flow_names, read_flows
from headrace_broker.retention import Rule
from headrace_orchestrator.inbox import Item
from headrace_orchestrator.metrics import Metrics

from .definitions import sweep_definitions
from .rule import ASKED, Due, Sizes, due, reason

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 10.0
HURRY_SECONDS: Final = 1.0
"""How soon it looks again while the server is out of memory."""
DEFINITIONS_SECONDS: Final = 3600.0
SLICE: Final = 64
"""Instances deleted, or freed, in one slice: some 2 ms."""
LARGE_VALUES: Final = 64
"""Large values freed in one slice: at most 64 MiB."""
_COMMANDS: Final = 512
"""Of one slice of a look."""


class _Index(NamedTuple):
    """One index of what is retained."""

    partition: int
    kind: RetainedClass
    flow: str


class Sweeper:
    """Times are seconds of the injected monotonic clock. `owned` maps the partitions owned to their owner's token."""

    def __init__(
        self,
        keys: Keys,
        partitions: int,
        rule: Rule,
        metrics: Metrics,
        monotonic: Callable[[], float],
        now: Callable[[], int],
    ) -> None:
        """`rule` holds for what a flow leaves open; `now` is the server's time in ms."""
        self._keys = keys
        self._partitions = partitions
        self._rule = rule
        self._metrics = metrics
        self._monotonic = monotonic
        self._now = now
        self._looked = monotonic()
        self.next = self._looked + LOOK_SECONDS
        """When to look for what is due."""
        self._definitions_at = self._looked + LOOK_SECONDS
        self._flows: list[str] = []
        self._work: dict[_Index, Due] = {}
        self._due: dict[_Index, int] = {}
        self._purging: set[int] = set()

    def has_work(self, owned: Collection[int]) -> bool:
        """Whether a slice would do anything now."""
        return (
            self._monotonic() >= self.next
            or bool(self._flows)
            or any(number in self._purging for number in owned)
            or any(index.partition in owned for index in self._work)
        )

    def asked(self, partition: int, items: Iterable[Item]) -> None:
        """Instances that somebody wants deleted, by items that were committed."""
        for item in items:
            if item.doomed is not None:
                index = _Index(partition, retained_class(item.doomed.status), item.doomed.flow)
                self._work.setdefault(index, Due(ASKED, 0))

    def hurry(self) -> None:
        """The server is out of memory."""
        self.next = min(self.next, self._looked + HURRY_SECONDS)

    def put_off(self) -> None:
        """Something is wrong with what is left to do: it is looked for anew."""
        self._work.clear()
        self._purging.clear()
        self._flows.clear()
        self.next = self._monotonic() + LOOK_SECONDS

    def slice(self, owned: Mapping[int, str]) -> Conversation[None]:
        """A bounded part of what there is to do. Raises `Fenced` with the partition that another owns by now."""
        self._work = {index: part for index, part in self._work.items() if index.partition in owned}
        freeing = next((number for number in self._purging if number in owned), None)
        if freeing is not None:
            if not (yield from free(self._keys.partition(freeing), SLICE, LARGE_VALUES)):
                self._purging.discard(freeing)
        elif self._flows or self._monotonic() >= self.next:
            yield from self._look(owned)
        elif self._work:
            yield from self._forget(owned)
        self._metrics.sweep_backlog.set(sum(self._due.get(index, 0) for index in self._work))

    # -- what is due ------------------------------------------------------------------------------

    def _look(self, owned: Mapping[int, str]) -> Conversation[None]:
        if not self._flows:
            self._looked = self._monotonic()
            self.next = self._looked + LOOK_SECONDS
            yield from self._begin_round(owned)
        at_once = max(1, _COMMANDS // (4 * self._partitions))
        chunk, self._flows = self._flows[:at_once], self._flows[at_once:]
        for flow in (yield from read_flows(self._keys, chunk)):
            yield from self._look_at(flow.name, flow.retention.over(self._rule), owned)

    def _begin_round(self, owned: Mapping[int, str]) -> Conversation[None]:
        sizes = yield from ask(*(("SCARD", self._keys.partition(number).purge) for number in owned))
        self._purging = {number for number, size in zip(owned, sizes, strict=True) if size}
        self._flows = yield from flow_names(self._keys)
        if 0 in owned and self._looked >= self._definitions_at:
            self._definitions_at = self._looked + DEFINITIONS_SECONDS
            self._metrics.definitions_swept.inc(
                (yield from sweep_definitions(self._keys, self._partitions, self._now()))
            )

    def _look_at(self, flow: str, rule: Rule, owned: Mapping[int, str]) -> Conversation[None]:
        partitions = [self._keys.partition(number) for number in range(self._partitions)]
        cards = yield from ask(
            *(("ZCARD", keys.retained(kind, flow)) for keys in partitions for kind in RETAINED_CLASSES)
        )
        sizes = [Sizes(*pair) for pair in zip(cards[::2], cards[1::2], strict=True)]
        found = due(rule, sizes, self._now())
        indexes: list[tuple[_Index, Due]] = []
        commands: list[Command] = []
        for number in owned:
            for kind, size, part in zip(RETAINED_CLASSES, sizes[number], found[number], strict=True):
                if size:
                    indexes.append((_Index(number, kind, flow), part))
                    commands.append(("ZCOUNT", partitions[number].retained(kind, flow), "-inf", part.until))
        counts = (yield from ask(*commands)) if commands else []
        for (index, part), count in zip(indexes, counts, strict=True):
            self._due[index] = max(count, part.over)
            if self._due[index]:
                self._work[index] = part
            else:
                del self._due[index]

    # -- deleting it ------------------------------------------------------------------------------

    def _forget(self, owned: Mapping[int, str]) -> Conversation[None]:
        index, part = next(iter(self._work.items()))
        keys = self._keys.partition(index.partition)
        key = keys.retained(index.kind, index.flow)
        commands: list[Command] = [("ZRANGEBYSCORE", key, "-inf", part.until, "WITHSCORES", "LIMIT", 0, SLICE)]
        if part.over > 0:
            commands.append(("ZRANGE", key, 0, min(part.over, SLICE) - 1, "WITHSCORES"))
        rows = max((yield from ask(*commands)), key=len)  # both begin with the oldest
        del self._work[index]  # at the end again, if there is more: partitions take turns
        members, ends = rows[::2], [int(float(score)) for score in rows[1::2]]
        if members:
            yield from forget(keys, owned[index.partition], index.kind, index.flow, members)
            self._purging.add(index.partition)
            for end in ends:
                self._metrics.instances_swept.labels(index.flow, reason(end, part.until)).inc()
        left = self._due.pop(index, 0) - len(members)
        if len(members) == SLICE:
            self._work[index] = Due(part.until, max(0, part.over - SLICE))
            self._due[index] = max(0, left)
