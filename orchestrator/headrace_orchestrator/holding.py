"""One partition as an orchestrator sees it, owned or not: acquiring, renewing, judging its leases, losing it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from headrace_broker.commit import ORIGIN
from headrace_broker.connection import Connector, Link, Reply, call, exchange
from headrace_broker.errors import Fenced, HeadraceError, ServerError, ServerUnreachable
from headrace_broker.keys import Keys

from .clock import ServerClock
from .inbox import entry_key
from .leases import LeaseJudge
from .loader import Programs
from .metrics import Metrics
from .options import OrchestratorOptions
from .ownership import Ownership
from .partition import Partition

if TYPE_CHECKING:
    from .survey import Found

log = logging.getLogger(__name__)

CURSOR_LAG_SECONDS = 5.0
"""How long `meta` may lag behind in raw signals of other partitions, which hold up only their trimming."""

_FAR_OFF = 2.0**53


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
        self._stopped = False
        self._streams: Sequence[str] = ()
        self._cursor_committed_at = monotonic()

    @property
    def live(self) -> Partition:
        """The partition. Raises RuntimeError unless it is owned."""
        if self.partition is None:
            raise RuntimeError(f"partition {self.number} is not owned")
        return self.partition

    def maintain(self, connector: Connector, reader: Link) -> None:
        """Acquires or renews when that is due. Raises `Fenced` when another owner has it."""
        now = self._monotonic()
        if self.partition is None:
            if now >= self._try_at and not self._stopped:
                self._acquire(connector)
        elif now >= self._ownership.renewal_due:
            self._ownership.renew(reader)
            self._commit_cursor(now)

    def _acquire(self, connector: Connector) -> None:
        # A quarter of the lease, with jitter, so that contenders spread out and a free partition is soon taken.
        self._try_at = self._monotonic() + self._options.ownership_ms / 4000 * self._random.uniform(0.8, 1.2)
        link = self._link or connector.connect()
        self._link = link
        try:
            meta = self._ownership.acquire(link, self._highest_id)
            if meta is None:
                return
            meta = replace(meta, signals=self._signals_cursor(link, meta.signals))
            partition = Partition(
                self._keys,
                self.number,
                link,
                meta,
                self._clock,
                self._programs,
                self._options,
                self._metrics,
                self._monotonic,
            )
            partition.open()
        except HeadraceError:
            self.drop()
            raise
        self.partition = partition
        self.judge.contact_lost(self._monotonic())
        log.info("Partition %d: owned, at commit %d.", self.number, meta.commit)

    def _highest_id(self, link: Link) -> int:
        """The highest id in the partition's task streams, which a stray XADD may have raised: commits go above it."""
        names = sorted(name.decode() for name in call(link, "SMEMBERS", self._keys.queues))
        streams = exchange(link, [("XINFO", "STREAM", self._partition_keys.tasks(name)) for name in names])
        return max((entry_key(last_id(reply))[0] for reply in streams), default=0)

    def _signals_cursor(self, link: Link, cursor: str) -> str:
        """The cursor, unless it lies above the stream's end: a promoted server may have lost the tail (DESIGN 5)."""
        end = last_id(exchange(link, [("XINFO", "STREAM", self._keys.signals)])[0])
        if entry_key(cursor) <= entry_key(end):
            return cursor
        log.warning("Partition %d: raw signals were read to %s, but they end at %s.", self.number, cursor, end)
        return end

    def _commit_cursor(self, now: float) -> None:
        """Writes down which raw signals were passed over, so that partition 0's owner may trim them."""
        if self.live.cursor_is_behind and now - self._cursor_committed_at >= CURSOR_LAG_SECONDS:
            self._cursor_committed_at = now
            self.live.begin([])
            self.live.finish()

    # -- what is due ------------------------------------------------------------------------------

    def next_duty(self, clock: ServerClock) -> float:
        """When this partition wants a turn even if nothing comes in."""
        if self.partition is None:
            return self._try_at if not self._stopped else float("inf")
        due = [self._ownership.renewal_due]
        if self._streams:
            due.append(self.judge.due)
        if self.partition.next_due is not None:
            due.append(self._monotonic() + max(0, self.partition.next_due + 1 - clock.now()) / 1000)
        return min(due)

    def streams_to_judge(self, now: float) -> list[str]:
        return list(self._streams) if self.judge.may_judge(now) else []

    def surveyed(self, found: Found) -> None:
        lengths = found.lengths.get(self.number, {})
        self._streams = sorted(lengths)
        self.live.window.measured(lengths, found.live)

    def timers(self, reply: Sequence[bytes], horizon_ms: int, *, due: bool) -> list[bytes]:
        """The members that may fire, from a reply WITHSCORES; and when to look again."""
        live = self.live
        rows = [(member, _due(score)) for member, score in zip(reply[::2], reply[1::2], strict=True)]
        if not due:
            live.next_due = rows[0][1] if rows else None
            live.refresh_due = False
            return []
        firing = [(member, score) for member, score in rows if score <= horizon_ms]
        for _, score in firing:
            self._metrics.timer_lateness_seconds.observe(max(0, self._clock.now() - score) / 1000)
        live.next_due = None
        live.refresh_due = True
        return [member for member, _ in firing]

    # -- losing it --------------------------------------------------------------------------------

    def contact_lost(self, now: float) -> None:
        self.judge.contact_lost(now)

    def stop_for_good(self) -> None:
        """Damaged data: nobody should go on here before a person has looked."""
        self._stopped = True

    def drop(self) -> None:
        """Forgets everything; the ownership key runs out by itself, or is taken anew."""
        self.partition = None
        if self._link is not None:
            self._link.close()
            self._link = None

    def release(self) -> None:
        """Gives the partition up, if the server still answers."""
        if self.partition is None or self._link is None:
            return
        try:
            with suppress(Fenced):  # then the key is another's, and releasing it changes nothing
                if not self._stopped:
                    self._commit_cursor(self._monotonic() + CURSOR_LAG_SECONDS)
            self._ownership.release(self._link)
        except (ServerUnreachable, ServerError) as error:
            log.warning("Partition %d: not released, its ownership runs out by itself: %s", self.number, error)
        self.drop()


def last_id(reply: Reply) -> str:
    """A stream's last id, from the reply of XINFO STREAM; the origin if there is no such stream."""
    if isinstance(reply, ServerError):
        return ORIGIN
    facts = dict(zip(reply[::2], reply[1::2], strict=True))
    return str(facts[b"last-generated-id"].decode())


def _due(score: bytes) -> int:
    """A timer's score in ms; an infinite one, which only a strange hand can write, is as far off as can be."""
    return int(max(-_FAR_OFF, min(float(score), _FAR_OFF)))
