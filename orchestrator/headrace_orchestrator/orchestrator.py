"""The orchestrator: owns partitions, reads their inboxes, and gives each what came. A step function (invariant 4).

One turn: renew or acquire ownership; one pipelined read of TIME and all inboxes; decide and send a commit per
partition; receive them. When a read finds nothing, the turn ends in a blocking read until the next thing is due.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from random import Random

from headrace_broker.clock import ServerClock
from headrace_broker.connection import Connector, Link, exchange, raise_error
from headrace_broker.conversations import converse
from headrace_broker.errors import (
    CommitDamaged,
    Fenced,
    HeadraceError,
    MessageError,
    PartitionDamaged,
    ServerError,
    ServerFull,
    ServerUnreachable,
)
from headrace_broker.keys import Keys

from .blocking import MAX_BLOCK_MS, BlockingReader
from .holding import Holding
from .inbox import Item, entries, read_events, read_starts
from .loader import Programs
from .metrics import Metrics
from .options import OrchestratorOptions
from .reading import Read, earliest, own_signals
from .survey import Survey
from .sweeping import Sweeper

log = logging.getLogger(__name__)

_SWEEP_SHARE = 1 / 6
"""Of the time in which events come without a pause, what the sweeper may take."""
_SWEEP_CREDIT_SECONDS = 0.02
_FULL_SECONDS = 0.1
"""How long commits wait after one that the server had no memory for."""
_REMIND_SECONDS = 1.0
"""After so long without such a commit, the next is said to be one."""


class Orchestrator:
    """Several may run; each partition has one owner at a time. Not thread-safe: one thread steps it."""

    def __init__(
        self,
        connector: Connector,
        keys: Keys,
        partitions: int,
        options: OrchestratorOptions,
        metrics: Metrics,
        *,
        monotonic: Callable[[], float],
        random: Random,
    ) -> None:
        self.keys = keys
        self._connector = connector
        self._options = options
        self._metrics = metrics
        self._monotonic = monotonic
        self._clock = ServerClock(monotonic)
        self._programs = Programs(keys)
        self._survey = Survey(keys, partitions, monotonic)
        self._sweeper = Sweeper(keys, partitions, options.retention, metrics, monotonic, self._clock.now)
        self._sweep_credit = 0.0
        self._swept_at = monotonic()
        self._full_until = monotonic() - _REMIND_SECONDS
        self._reader: Link | None = None
        self._blocking: BlockingReader | None = None
        self._partitions = partitions
        self._holdings = [
            Holding(keys, number, options, metrics, self._clock, self._programs, monotonic, random)
            for number in range(partitions)
        ]

    @property
    def owned(self) -> list[int]:
        return [holding.number for holding in self._holdings if holding.partition is not None]

    def step(self, max_block_ms: int = MAX_BLOCK_MS, wait: Callable[[bool], None] | None = None) -> bool:
        """One turn; whether it did anything. `max_block_ms` 0 never waits (the simulator's choice). `wait` is told when
        a wait that may be interrupted begins (True) and has ended (False).

        Raises `ServerUnreachable` when the server is gone, and `ServerError` when it answers but not with what was
        asked (it loads its data, or a key is of another type): everything in memory is dropped then, and the next
        step connects anew.
        """
        try:
            reader = self._connected()
            self._maintain(reader)
            busy = self._turn(reader)
            if self._sweep(reader, busy=busy) or busy or any(holding.repairing for holding in self._working()):
                return True
            idle = min(max_block_ms, self._idle_ms())
            return self._blocking_turn(reader, idle, wait or _ignore) if idle > 0 else False
        except (ServerUnreachable, ServerError):
            self.disconnect()
            raise

    def close(self) -> None:
        """Gives up what it owns, so that another may take over at once."""
        for holding in self._holdings:
            if not holding.release():
                break  # the rest would wait as long, in vain
        self.disconnect()

    def disconnect(self) -> None:
        """Drops every connection and everything in memory; ownership keys run out by themselves."""
        for holding in self._holdings:
            holding.drop()
        if self._blocking is not None:
            self._blocking.close()
            self._blocking = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # -- a turn -----------------------------------------------------------------------------------

    def _connected(self) -> Link:
        if self._reader is None:
            self._reader = self._connector.connect()
            for holding in self._holdings:
                holding.contact_lost(self._monotonic())
            self._clock.learn(raise_error(exchange(self._reader, [("TIME",)])[0]))
        return self._reader

    def _maintain(self, reader: Link) -> None:
        for holding in self._holdings:
            try:
                holding.maintain(self._connector, reader)
            except (Fenced, ServerError, MessageError) as error:
                self._lost(holding, error)
            except ServerUnreachable:
                raise
            except Exception:  # whatever lies in this partition's keys, the others go on
                log.exception("Partition %d: it cannot be taken care of; it is tried again.", holding.number)
                holding.put_off()
        owned = [holding for holding in self._holdings if holding.partition is not None]
        self._metrics.partitions_owned.set(len(owned))
        if self._survey.due and owned:
            try:
                found = converse(reader, self._survey.take([holding.number for holding in owned]))
            except (ServerError, MessageError) as error:  # what was found last will do
                log.warning("The task streams were not surveyed: %s", error)
                return
            for holding in owned:
                holding.surveyed(found)
                self._metrics.backlog(holding.number, found.lengths.get(holding.number, {}))

    def _working(self) -> list[Holding]:
        """The partitions owned, none while commits wait for memory."""
        if self._monotonic() < self._full_until:
            return []
        return [holding for holding in self._holdings if holding.partition is not None]

    def _sweep(self, reader: Link, *, busy: bool) -> bool:
        """A slice of the sweeper's work, if there is any and it is its turn; whether there is more."""
        began = self._monotonic()
        credit = self._sweep_credit + (began - self._swept_at) * _SWEEP_SHARE
        self._sweep_credit, self._swept_at = min(credit, _SWEEP_CREDIT_SECONDS), began
        if busy and credit < 0:
            return False
        owned = {holding.number: holding.live.token for holding in self._holdings if holding.partition is not None}
        if not owned or not self._sweeper.has_work(owned):
            return False
        try:
            converse(reader, self._sweeper.slice(owned))
        except Fenced as error:
            self._lost(self._holdings[int(error.ids["partition"])], error)
        except ServerError as error:
            log.warning("Nothing was swept, it is tried again later: %s", error)
            self._sweeper.put_off()
        self._sweep_credit -= self._monotonic() - began
        return self._sweeper.has_work(self.owned)

    def _turn(self, reader: Link) -> bool:
        """Everything that is there now, without waiting."""
        owned = self._working()
        if not owned:
            return False
        read = Read(self.keys.signals, owned, self._options.batch, self._clock.now(), self._monotonic())
        began = self._monotonic()
        replies = exchange(reader, read.commands)
        self._heard(began)
        work = read.items(reader, replies, self._clock, self._partitions)
        return self._apply(owned, work)

    def _blocking_turn(self, reader: Link, wait_ms: int, wait: Callable[[bool], None]) -> bool:
        """Waits for the first entry of any inbox, at most `wait_ms`."""
        owned = self._working()
        streams: list[str] = [self.keys.signals]
        cursors: list[str] = [earliest([h.live.cursors["signals"] for h in owned])] if owned else ["$"]
        count = self._options.batch
        for holding in owned:
            live = holding.live
            streams.append(live.keys.events)
            cursors.append(live.cursors["events"])
            if room := live.window.room(self._monotonic(), self._options.batch):
                count = min(count, room)  # COUNT holds for each stream
                streams.append(live.keys.starts)
                cursors.append(live.cursors["starts"])
        if self._blocking is None:
            self._blocking = BlockingReader(self._connector.connect())
        wait(True)
        began = self._monotonic()
        reply = self._blocking.read(count, streams, cursors, wait_ms, reader)
        wait(False)
        self._heard(began, wait_ms / 1000)
        by_stream = dict(entries(reply))
        work: dict[int, list[Item]] = {}
        signals = by_stream.get(self.keys.signals.encode(), [])
        for holding in owned:
            live = holding.live
            items = read_events(by_stream.get(live.keys.events.encode(), []), live.keys)
            items += own_signals(signals, holding, self._partitions)
            starts = by_stream.get(live.keys.starts.encode(), [])
            live.window.took(len(starts))
            items += read_starts(starts, live.keys)
            work[holding.number] = items
        return self._apply(owned, work)

    def _apply(self, owned: Sequence[Holding], work: dict[int, list[Item]]) -> bool:
        """Sends every partition's commit before it waits for the first one's reply."""
        sent: list[Holding] = []
        for holding in owned:
            items = work.get(holding.number, [])
            if not items:
                continue
            if all(item.source == "signals" and item.event is None and item.reason is None for item in items):
                holding.live.cursors["signals"] = items[-1].id  # others' signals: no commit for that alone
                continue
            try:
                holding.live.begin(items)
                sent.append(holding)
            except (Fenced, ServerError) as error:
                self._lost(holding, error)
        began = self._monotonic()
        for holding in sent:
            try:
                holding.live.finish()
                self._sweeper.asked(holding.number, work[holding.number])
            except (Fenced, ServerError) as error:
                self._lost(holding, error)
        self._heard(began)
        return bool(sent)

    def _heard(self, since: float, expected: float = 0.0) -> None:
        """The server answered what it was asked at `since`; if it paused meanwhile, nobody could renew a lease."""
        now = self._monotonic()
        if now - since - expected > self._options.lease_ms / 4000:
            for holding in self._holdings:
                holding.contact_lost(now)

    def _lost(self, holding: Holding, error: HeadraceError) -> None:
        if isinstance(error, Fenced):
            self._metrics.fenced.inc()
            log.warning("Partition %d: fenced: %s", holding.number, error)
            holding.drop()
        elif isinstance(error, ServerFull) and holding.partition is not None:
            self._full(holding, error)
        elif isinstance(error, (CommitDamaged, PartitionDamaged, MessageError)):
            self._metrics.damaged.inc()
            log.error("Partition %d: stopped, to be repaired: %s", holding.number, error)
            holding.damaged()
        else:
            log.error("Partition %d: the server refused a commit; it is tried again: %s", holding.number, error)
            holding.put_off()

    def _full(self, holding: Holding, error: ServerFull) -> None:
        """Nothing was applied, and the partition stays ours: it could not be taken anew without memory either."""
        self._metrics.out_of_memory.inc()
        now = self._monotonic()
        if now > self._full_until + _REMIND_SECONDS:
            log.error("Partition %d: commits wait while the sweeper frees what is due: %s", holding.number, error)
        holding.rewind()
        self._full_until = now + _FULL_SECONDS
        self._sweeper.hurry()

    def _idle_ms(self) -> int:
        now = self._monotonic()
        if now < self._full_until:
            return int((self._full_until - now) * 1000) + 1
        if any(holding.partition is not None and holding.live.refresh_due for holding in self._holdings):
            return 0
        soonest = min(holding.next_duty(self._clock) for holding in self._holdings)
        if self.owned:  # who owns nothing surveys nothing
            soonest = min(soonest, self._survey.next, self._sweeper.next)
        return max(0, min(MAX_BLOCK_MS, int((soonest - now) * 1000) + 1))


def _ignore(waiting: bool) -> None:
    return
