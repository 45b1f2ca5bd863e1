"""The keeper: renews the leases its children report, watches that they live, and answers for those that died.

It runs no user code, so nothing that a task does can stop it. A sync step function over `Link`, with injected clock,
random and spawner; `process` drives it in a real process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final

from headrace_broker import tasks, workers
from headrace_broker.backoff import Backoff
from headrace_broker.clock import ASK, ServerClock
from headrace_broker.connection import Command, Connector, Link, exchange, raise_error
from headrace_broker.conversations import converse
from headrace_broker.errors import MessageError, ServerError, ServerUnreachable
from headrace_broker.ids import DispatchId
from headrace_broker.namespace import Namespace
from headrace_broker.tasks import Source
from headrace_broker.workers import WorkerRecord

from .estates import Estate
from .nursery import Child, Cot, Spawner
from .pipe import Ready
from .slots import Place
from .trial import died_loading

_KILL_AFTER_SECONDS: Final = 10.0
"""How long after the grace a draining child is killed: it saves results meanwhile."""
_PARTING_SECONDS: Final = 1.0
"""How long a keeper that is to end waits for a reply, and at the very end for a server."""
_ESTATES: Final = 64
_MAX_WAIT: Final = 1.0

_log = logging.getLogger("headrace.worker")


@dataclass(frozen=True)
class KeeperSettings:
    """`name` is unique among all keepers there ever were; host and pid are for people."""

    name: str
    host: str = ""
    pid: int = 0
    processes: int = 1
    concurrency: int = 32
    lease_ms: int = 10_000
    grace_ms: int = 20_000


class Keeper:
    """Call `step` again after the seconds it returns, or as soon as a child says something or dies."""

    def __init__(
        self,
        settings: KeeperSettings,
        namespace: Namespace,
        connector: Connector,
        spawner: Spawner,
        *,
        monotonic: Callable[[], float],
        random: Random,
        bridge: Spawner | None = None,
    ) -> None:
        """`bridge` spawns the child for what only work-horses can serve, once `process_work` is known."""
        self._settings = settings
        self._namespace = namespace
        self._connector = connector
        self._spawner = spawner
        self._clock = ServerClock(monotonic)
        self._random = random
        self._lease = settings.lease_ms / 1000
        now = monotonic()
        self._partition_of: dict[str, int] = {}
        """By key of a stream."""
        self._cots = [Cot(random, now, self._partition_of) for _ in range(settings.processes)]
        self._bridge_spawner = bridge
        self._bridge = Cot(random, now, self._partition_of)
        self._born = 0
        self._estates: list[Estate] = []
        self._estates_due = now
        self._announce_due: float | None = None
        self._announced = False
        self._told: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        """Streams and tasks, as the log names them."""
        self._started_ms: int | None = None
        self._also: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
        self._link: Link | None = None
        self._link_backoff = Backoff(random)
        self._link_due = now
        self._kill_at: float | None = None
        self._hurry = False
        self._give_up_at: float | None = None
        self._ready: Ready | None = None
        """What children serve; once known, a child that fails to start is tried again."""
        self.failure: str | None = None
        """Why there is no point in going on."""
        self.done = False

    @property
    def children(self) -> list[Child]:
        return [child for cot, _ in self._places() for child in cot.children]

    def _places(self) -> list[tuple[Cot, Spawner]]:
        """Where a child should live, and who makes it."""
        places = [(cot, self._spawner) for cot in self._cots]
        if self._bridge_spawner is not None and self.process_work[0]:
            places.append((self._bridge, self._bridge_spawner))
        return places

    @property
    def process_work(self) -> tuple[frozenset[str], frozenset[str]]:
        """Streams and tasks that only work-horses can serve: what a bridge to RQ is for."""
        if self._ready is None:
            return frozenset(), frozenset()
        return frozenset(self._ready.process_streams), frozenset(self._ready.process_tasks)

    def announce_also(self, streams: Iterable[str], names: Iterable[str]) -> None:
        """A bridge serves these streams and tasks beside the children."""
        self._also = (frozenset(streams), frozenset(names))
        self._announce_due = self._clock.monotonic()

    def revoked(self, dispatches: Iterable[str]) -> None:
        """Tells the children what an owner has revoked: the fast way, beside the answer to the next renewal."""
        places: list[Place] = []
        for dispatch in dispatches:
            with suppress(MessageError):
                parsed = DispatchId.parse(dispatch)
                places.append((parsed.partition, parsed.entry))
        for child in self.children:
            child.revoke(places)

    def drain(self, grace_ms: int | None = None) -> None:
        """Ends when the children have finished, within the grace."""
        if self._kill_at is not None:
            return
        grace = self._settings.grace_ms if grace_ms is None else grace_ms
        self._kill_at = self._clock.monotonic() + grace / 1000 + _KILL_AFTER_SECONDS
        self._announce_due = self._clock.monotonic()  # to withdraw it: nothing more is taken
        self._drop_link()  # the next has less patience, for a second signal has to be heard soon
        for child in self.children:
            child.drain(grace)

    def kill(self) -> None:
        """Ends at once: what the children hold is handed back, if the server answers now."""
        self.drain(0)
        if not self._hurry:
            self._hurry = True
            self._kill_at = self._link_due = self._clock.monotonic()
            self._give_up_at = None

    def step(self) -> float:
        """Does what is due; returns after how many seconds something will be."""
        now = self._clock.monotonic()
        for cot, _ in self._places():
            for child in list(cot.children):
                self._look_after(cot, child, now)
            if self._kill_at is None:
                cot.make_room(now)
        if self.failure is not None:
            self.kill()
        self._serve(now)
        if self._kill_at is not None:
            self._wind_up(now)
        else:
            for cot, spawner in self._places():
                if cot.child is None and now >= cot.due:
                    self._born += 1
                    cot.spawn(spawner, f"{self._settings.name}.{self._born}", now)
        return self._until_due(now)

    # Children.

    def _look_after(self, cot: Cot, child: Child, now: float) -> None:
        status = child.process.poll()  # before listening: then a dead one's last words are complete
        if child.listen(now) and child.ready is not None:
            if cot is self._bridge:
                self.announce_also(child.ready.streams, child.ready.tasks)
            else:
                self._ready = child.ready
            self._partition_of |= {source.key: source.partition.number for source in self._sources(child.ready)}
            self._announce_due = now
            cot.settle(child)
        if status is None:
            child.judge(now)
            if self._kill_at is not None and now >= self._kill_at:
                child.kill("it has not finished in time")
            return
        self._bury(cot, child, status, now)

    def _bury(self, cot: Cot, child: Child, status: int, now: float) -> None:
        stopping = self._kill_at is not None
        # A signal says nothing of the targets: somebody killed it.
        if self._ready is None and not stopping and (child.failed is not None or status >= 0):
            self.failure = child.failed or died_loading(status, child.process.last_lines())
        cot.bury(child, status, now)
        if self.failure is None and not stopping and (status != 0 or child.worn is None):
            _log.warning("%s", cot.obituary(child, status, now))
        if child.ready is not None:
            # If it was killed for a task that would not stop, that one was revoked before, and is not pending.
            blameless = stopping or (child.killed is not None and bool(child.revoked))
            self._estates.append(Estate(child.consumer, self._sources(child.ready), child.not_begun(), blameless))
            del self._estates[:-_ESTATES]
            self._estates_due = now
        if cot is self._bridge:
            self.announce_also((), ())

    def _sources(self, ready: Ready) -> tuple[Source, ...]:
        return tasks.sources(self._namespace.all_partitions, ready.streams)

    def _wind_up(self, now: float) -> None:
        if self.children:
            return
        if self._give_up_at is None:
            self._give_up_at = now + (_PARTING_SECONDS if self._hurry else max(1.0, self._lease))
        settled = not self._announced and all(estate.complete for estate in self._estates)
        if settled or now >= self._give_up_at:
            self.done = True
            self._drop_link()

    # The server.

    def _serve(self, now: float) -> None:
        """Does what is due at the server, unless it was unreachable a moment ago."""
        estates = bool(self._estates) and now >= self._estates_due
        renewals = [child for child in self.children if child.report_is_new]
        announce = self._announce_due is not None and now >= self._announce_due
        if now < self._link_due or not (estates or renewals or announce):
            return
        try:
            link = self._connected()
            if renewals:
                self._renew(link, renewals)
            if estates:
                self._settle_estates(link, now)
            if announce:
                self._announce(link, now)
            self._link_backoff.reset()
        except (ServerUnreachable, ServerError) as error:
            if self._link_backoff.failures in (0, 10):
                _log.warning("Waiting for the server: %s", error)
            self._drop_link()
            self._link_due = self._clock.monotonic() + self._link_backoff.next()

    def _connected(self) -> Link:
        if self._link is None:
            link = self._connector.connect(timeout=self._patience)
            sent = self._clock.monotonic()
            self._clock.learn(exchange(link, [ASK])[0], sent)
            self._link = link
        return self._link

    @property
    def _patience(self) -> float:
        """Seconds for a reply."""
        return max(1.0, self._lease / 3) if self._kill_at is None else _PARTING_SECONDS

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _settle_estates(self, link: Link, now: float) -> None:
        left: list[Estate] = []
        for estate in self._estates:
            if count := converse(link, estate.report()):
                _log.info("%d deliveries of dead child %s were reported.", count, estate.consumer)
            if not converse(link, estate.drop()):
                left.append(estate)
        self._estates = left
        self._estates_due = now + self._lease / 2

    def _renew(self, link: Link, children: list[Child]) -> None:
        """Renews exactly what the children said they hold; what is not leased any more they shall stop."""
        commands: list[Command] = []
        spans: list[tuple[Child, str, list[str], int]] = []
        for child in children:
            for key, entries in child.by_stream().items():
                commands += tasks.renew(child.consumer, key, entries)
                spans.append((child, key, entries, len(commands)))
        replies = exchange(link, commands) if commands else []
        start = 0
        revoked: dict[Child, list[Place]] = {}
        for child, key, entries, end in spans:
            alive = tasks.renewed(replies[start:end])
            start = end
            gone = [(self._partition_of[key], entry) for entry in entries if entry not in alive]
            revoked.setdefault(child, []).extend(gone)
        for child in children:
            child.report_is_new = False
            child.revoke(revoked.get(child, ()))

    def _announce(self, link: Link, now: float) -> None:
        """Says what is served, or that nothing is any more."""
        sent = self._clock.monotonic()
        self._clock.learn(exchange(link, [ASK])[0], sent)
        record = None
        if self._kill_at is not None:
            commands = workers.withdraw(self._namespace.keys, self._settings.name)
        else:
            record = self._record()
            commands = workers.announce(self._namespace.keys, record, self._clock.now(), self._settings.lease_ms)
        for reply in exchange(link, commands):
            raise_error(reply)
        self._announced = self._kill_at is None
        if record is not None:
            self._tell(record)
        self._announce_due = now + self._lease / 3 if self._announced else None

    def _tell(self, record: WorkerRecord) -> None:
        """Logs what is served, when that is news: from now on its flows can be started by name."""
        if record.tasks and self._told != (record.streams, record.tasks):
            self._told = (record.streams, record.tasks)
            _log.info("Worker serves queues %s; tasks %s.", ", ".join(record.streams), ", ".join(record.tasks))

    def _record(self) -> WorkerRecord:
        if self._started_ms is None:
            self._started_ms = self._clock.now()
        settings = self._settings
        streams, names = self._also
        if self._ready is not None:
            streams |= set(self._ready.streams)
            names |= set(self._ready.tasks)
        return WorkerRecord(
            keeper=settings.name,
            host=settings.host,
            pid=settings.pid,
            processes=settings.processes,
            concurrency=settings.concurrency,
            started=self._started_ms,
            streams=tuple(sorted(streams)),
            tasks=tuple(sorted(names)),
        )

    def _until_due(self, now: float) -> float:
        if self.done:
            return 0.0
        times = [now + _MAX_WAIT]
        if self._estates:
            times.append(max(self._estates_due, self._link_due))
        if self._announce_due is not None:
            times.append(max(self._announce_due, self._link_due))
        if any(child.report_is_new for child in self.children):
            times.append(self._link_due)
        if self._kill_at is None:
            times += [cot.due for cot, _ in self._places() if cot.child is None]
        else:
            times.append(self._kill_at if self.children else now)
        return max(0.0, min(times) - self._clock.monotonic())
