"""One partition as an orchestrator sees it, owned or not: acquiring, renewing, judging its leases, losing it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from headrace_broker.backoff import Backoff
from headrace_broker.clock import ServerClock
from headrace_broker.commit import HIGHEST_ID, ORIGIN
from headrace_broker.connection import Connector, Link, exchange
from headrace_broker.errors import Fenced, HeadraceError, ServerError, ServerUnreachable
from headrace_broker.ids import entry_key
from headrace_broker.keys import Keys

from .condition import Condition, examine, last_id
from .inbox import Item
from .leases import LeaseJudge
from .loader import Programs
from .metrics import Metrics
from .options import OrchestratorOptions
from .ownership import Ownership
from .partition import Partition
from .repair import Repair

if TYPE_CHECKING:
    from .survey import Found

log = logging.getLogger(__name__)

CURSOR_LAG_SECONDS = 5.0
"""How long `meta` may lag behind in raw signals of other partitions, which hold up only their trimming."""

_FAR_OFF = 2.0**53
_LONGEST_GAP_MS = 50
_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0
_FORGET_FAILURES_SECONDS = 60.0


class Holding:
    """Times are seconds of the injected monotonic clock unless they end in `_ms`."""

    def __init__(
        self,
        keys: Keys,
        number: int,
        options: OrchestratorOptions,
        metrics: Metrics,
        clock: ServerClock,
        programs: Programs,
        monotonic: Callable[[], float],
        random: Random,
    ) -> None:
        self.number = number
        self.partition: Partition | None = None
        self.judge = LeaseJudge(options.lease_ms, monotonic())
        self._keys = keys
        self._partition_keys = keys.partition(number)
        self._options = options
        self._metrics = metrics
        self._clock = clock
        self._programs = programs
        self._monotonic = monotonic
        self._random = random
        self._ownership = Ownership(
            self._partition_keys, options.ownership_ms, monotonic, lambda: f"{random.getrandbits(64):016x}"
        )
        self._link: Link | None = None
        self._try_at = monotonic()
        self._repair: Repair | None = None
        self._damaged = False
        """Whether a commit was damaged, or an acquisition refused for damage, since the last repair was finished."""
        self._backoff = Backoff(random, _PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        self._failed_at = float("-inf")
        self._streams: Sequence[str] = ()
        self._timers_from = 0.0
        self._cursor_committed_at = monotonic()

    @property
    def live(self) -> Partition:
        """The partition. Raises RuntimeError unless it is owned."""
        if self.partition is None:
            raise RuntimeError(f"partition {self.number} is not owned")
        return self.partition

    def maintain(self, connector: Connector, reader: Link) -> None:
        """Acquires, renews or repairs when that is due. Raises `Fenced` when another owner has it."""
        now = self._monotonic()
        if self.partition is None:
            if now >= self._try_at:
                self._acquire(connector)
        elif now >= self._ownership.renewal_due:
            self._ownership.renew(reader)
            self._check_signals_cursor(reader)
            self._commit_cursor(now)
        if self._repair is not None and self._link is not None:
            self._go_on_repairing(self._repair, self._link)

    def _acquire(self, connector: Connector) -> None:
        # A quarter of the lease, with jitter, so that contenders spread out and a free partition is soon taken.
        self._try_at = self._monotonic() + self._options.ownership_ms / 4000 * self._random.uniform(0.8, 1.2)
        link = self._link or connector.connect()
        self._link = link
        try:
            meta = self._ownership.acquire(link, self._examine, damaged=self._damaged)
            if meta is None:
                return
            signals = self._signals_cursor(link, meta.signals)
            partition = Partition(
                self._keys,
                self.number,
                link,
                replace(meta, signals=signals),
                self._clock,
                self._programs,
                self._options,
                self._metrics,
                self._monotonic,
            )
            partition.open()
            if signals != meta.signals:  # at once: what comes is trimmed up to the lowest cursor that is written down
                partition.begin([])
                partition.finish()
        except HeadraceError:
            self.drop()
            raise
        self.partition = partition
        self._repair = Repair(self._keys, self._partition_keys, self._programs) if meta.repair else None
        self.judge.contact_lost(self._monotonic())
        log.info("Partition %d: owned, at commit %d.", self.number, meta.commit)

    def _examine(self, link: Link) -> Condition:
        return examine(link, self._keys, self._partition_keys)

    def _signals_cursor(self, link: Link, cursor: str) -> str:
        """The cursor, unless it lies above the stream's end: a promoted server may have lost the tail (DESIGN 5).

        After an id that only a strange hand writes, the stream was made anew, and is read from its beginning.
        """
        end = last_id(exchange(link, [("XINFO", "STREAM", self._keys.signals)])[0])
        if entry_key(cursor) <= entry_key(end):
            return cursor
        found = ORIGIN if entry_key(cursor)[0] > HIGHEST_ID else end
        self._metrics.cursors_moved.inc()
        log.warning(
            "Partition %d: raw signals were read to %s, but they end at %s; they are read on from %s.",
            *(self.number, cursor, end, found),
        )
        return found

    def _check_signals_cursor(self, link: Link) -> None:
        """While a partition is owned the stream may be made anew, too. A cursor that moved is written down at once."""
        cursor = self.live.cursors["signals"]
        if (found := self._signals_cursor(link, cursor)) != cursor:
            self.live.cursors["signals"] = found
            self.live.begin([])
            self.live.finish()

    def _commit_cursor(self, now: float) -> None:
        """Writes down which raw signals were passed over, so that partition 0's owner may trim them."""
        if self.live.cursor_is_behind and now - self._cursor_committed_at >= CURSOR_LAG_SECONDS:
            self._cursor_committed_at = now
            self.live.begin([])
            self.live.finish()

    # -- after damage -----------------------------------------------------------------------------

    @property
    def repairing(self) -> bool:
        return self._repair is not None

    def lost(self) -> list[Item]:
        """What a repair found lost. To be applied after all that is in the inbox now."""
        return self._repair.take() if self._repair is not None else []

    def _go_on_repairing(self, repair: Repair, link: Link) -> None:
        if repair.done:
            self.live.repaired()
            self._repair = None
            self._damaged = False
            log.warning("Partition %d: repaired; what the damaged commit lost was handed out again.", self.number)
            return
        repair.search(link)
        self.live.refresh_due = True  # it may have set timers

    # -- what is due ------------------------------------------------------------------------------

    def next_duty(self, clock: ServerClock) -> float:
        """When this partition wants a turn even if nothing comes in."""
        if self.partition is None:
            return self._try_at
        due = [self._ownership.renewal_due]
        if self._streams:
            due.append(self.judge.due)
        if self.partition.next_due is not None:
            due_at = self._monotonic() + max(0, self.partition.next_due + 1 - clock.now()) / 1000
            due.append(max(due_at, self._timers_from))
        return min(due)

    def streams_to_judge(self, now: float) -> list[str]:
        return list(self._streams) if self.judge.may_judge(now) else []

    def surveyed(self, found: Found) -> None:
        lengths = found.lengths.get(self.number, {})
        self._streams = sorted(lengths)
        self.live.window.measured(lengths, found.live)

    def timers_due(self, now_ms: int, now: float) -> bool:
        """Whether a timer may be due by our clock, and the server's was not found to be behind just now."""
        due = self.live.next_due
        return due is not None and due <= now_ms and now >= self._timers_from

    def timers(self, reply: Sequence[bytes], horizon_ms: int, *, due: bool) -> list[bytes]:
        """The members that may fire, from a reply WITHSCORES; and when to look again."""
        live = self.live
        rows = [(member, _due(score)) for member, score in zip(reply[::2], reply[1::2], strict=True)]
        if not due:
            live.next_due = rows[0][1] if rows else None
            live.refresh_due = False
            return []
        firing = [(member, score) for member, score in rows if score <= horizon_ms]
        if rows and not firing:  # the server's clock is behind ours: it was set back, or the millisecond is not over
            live.next_due = rows[0][1]
            gap_ms = min(live.next_due - horizon_ms, _LONGEST_GAP_MS)
            self._timers_from = self._monotonic() + gap_ms / 1000
            return []
        for _, score in firing:
            self._metrics.timer_lateness_seconds.observe(max(0, self._clock.now() - score) / 1000)
        live.next_due = None
        live.refresh_due = True
        return [member for member, _ in firing]

    def rewind(self) -> None:
        """After a commit that the server had no memory for: what it was to apply comes again."""
        self.live.rewind()
        if self._repair is not None:
            self._repair = Repair(self._keys, self._partition_keys, self._programs)

    # -- losing it --------------------------------------------------------------------------------

    def contact_lost(self, now: float) -> None:
        self.judge.contact_lost(now)

    def damaged(self) -> None:
        """Drops it, to be repaired by who acquires it next."""
        self._damaged = True
        self.put_off()

    def put_off(self) -> None:
        """Drops it, at first for no time, then for a while that grows: what made it fail may still be there."""
        self.drop()
        now = self._monotonic()
        if now - self._failed_at > _FORGET_FAILURES_SECONDS:
            self._backoff.reset()
            self._try_at = now
        else:
            self._try_at = now + self._backoff.next()
        self._failed_at = now

    def drop(self) -> None:
        """Forgets everything; the ownership key runs out by itself, or is taken anew."""
        self.partition = None
        self._repair = None
        if self._link is not None:
            self._link.close()
            self._link = None

    def release(self) -> bool:
        """Gives the partition up; False if the server does not answer."""
        if self.partition is None or self._link is None:
            return True
        answered = True
        try:
            with suppress(Fenced):  # then the key is another's, and releasing it changes nothing
                self._commit_cursor(self._monotonic() + CURSOR_LAG_SECONDS)
            self._ownership.release(self._link)
        except (ServerUnreachable, ServerError) as error:
            log.warning("Partition %d: not released, its ownership runs out by itself: %s", self.number, error)
            answered = not isinstance(error, ServerUnreachable)
        self.drop()
        return answered


def _due(score: bytes) -> int:
    """A timer's score in ms; an infinite one, which only a strange hand can write, is as far off as can be."""
    return int(max(-_FAR_OFF, min(float(score), _FAR_OFF)))
