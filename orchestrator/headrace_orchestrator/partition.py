"""One owned partition: decides batches of items and commits them. Only what was committed enters its caches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from headrace_broker.clock import ServerClock
from headrace_broker.commit import HIGHEST_ID, Commits, Meta
from headrace_broker.connection import Link, call, exchange, raise_error
from headrace_broker.errors import Fenced, MessageError, PartitionDamaged, ServerError, ServerUnreachable
from headrace_broker.ids import entry_key
from headrace_broker.instances import ENDED
from headrace_broker.keys import Keys
from headrace_broker.messages import CancelMessage, ResultMessage, SignalMessage, UnblockMessage
from headrace_broker.records import Token

from .cache import Caches, Recent
from .condition import exhausted
from .dispatching import SlotReader
from .engine import apply as engine
from .engine.model import Context, Draft, Instance
from .inbox import CURSORS, Item, references
from .loader import Programs, load_instances
from .metrics import Metrics
from .options import OrchestratorOptions
from .parking import Problem, blame, block, cancel, park
from .unparking import AT_ONCE, RESUMPTIONS, Backlog, Resume, Resumption, read_backlogs
from .window import StartWindow
from .writer import write

log = logging.getLogger(__name__)

SIGNALS_BUFFERED = 10_000
"""Signals of one name that an instance may hold (DESIGN 6)."""
_COMMITS_REMEMBERED = 4096
_CLOCK_ERROR_MS = 1000
_NO_TTL = -1
_ADOPTABLE_MS = 30_000
"""A value with less of its life left might be gone before the commit that adopts it."""
_OUTSIDE_FAULTS = (Fenced, ServerUnreachable, ServerError)


class Batch:
    """What one commit in flight will have done."""

    def __init__(
        self, items: Sequence[Item], drafts: Sequence[Draft], cursors: Mapping[str, str], now: int, sent_at: float
    ) -> None:
        self.items = items
        self.drafts = drafts
        self.cursors = cursors
        self.now = now
        self.sent_at = sent_at


class Partition:
    """The owner's side of one partition, for as long as one ownership token and one connection last."""

    def __init__(
        self,
        keys: Keys,
        number: int,
        link: Link,
        meta: Meta,
        clock: ServerClock,
        programs: Programs,
        options: OrchestratorOptions,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys = keys.partition(number)
        self.number = number
        self.link = link
        self.window = StartWindow(options.window, options.starts_per_second)
        self.cursors: dict[str, str] = {"events": meta.events, "starts": meta.starts, "signals": meta.signals}
        self.next_due: int | None = None
        """When the earliest timer is due (ms); it may be earlier than any there is, never later."""
        self.refresh_due = True
        self._token = meta.token
        self._clock = clock
        self._programs = programs
        self._options = options
        self._metrics = metrics
        self._monotonic = monotonic
        self._caches = Caches(options.cached_instances, options.cached_value_bytes)
        self._commits = Commits(link, self.keys, meta.token, meta.commit)
        self._committed = dict(self.cursors)
        self._batch: Batch | None = None
        self._known_streams: set[str] = set()
        self._queues_key = keys.queues
        self._dispatched_at: Recent[int, int] = Recent(_COMMITS_REMEMBERED)
        clock.not_before(meta.now)

    def open(self) -> None:
        """Raises `Fenced` if the partition was taken since its meta was read."""
        self._commits.watch()

    @property
    def token(self) -> str:
        """The owner's token, which fences what is written outside commits."""
        return self._token

    @property
    def cursor_is_behind(self) -> bool:
        """Whether `meta` does not say yet what was passed over without a commit."""
        return self._committed["signals"] != self.cursors["signals"]

    # -- a batch ----------------------------------------------------------------------------------

    def begin(self, items: Sequence[Item]) -> None:
        """Decides the items in their order and sends the commit; `finish` must follow.

        If deciding fails for a reason of its own, the items are done one by one, and the guilty one is quarantined
        (invariant 9). Raises `Fenced`, `ServerUnreachable` and `ServerError`: this object is of no use then.
        """
        try:
            self._send(items)
        except _OUTSIDE_FAULTS:
            raise
        except Exception:
            log.exception(
                "Partition %d: a batch of %d failed; its events are done one by one.", self.number, len(items)
            )
            self._one_by_one(items)

    def repaired(self) -> None:
        """Takes the mark of a damaged commit from `meta`, in a commit of its own. Raises as `begin`."""
        self._send([], marks={"repair": ""})
        self.finish()

    def finish(self) -> None:
        """Waits for the commit in flight, if there is one, and takes it into the caches. Raises as `begin`."""
        batch = self._batch
        if batch is None:
            return
        self._batch = None
        self._commits.receive()
        self._committed |= batch.cursors
        for draft in batch.drafts:
            self._keep(draft)
        for item in batch.items:
            self._settled(item, batch.now)
        self._say_what_was_quarantined(batch.items)
        self._metrics.committed(self.number, batch.drafts, batch.items, self._monotonic() - batch.sent_at)

    def rewind(self) -> None:
        """After a commit that the server refused for lack of memory: what it was to apply is read again."""
        self._batch = None
        self.cursors = dict(self._committed)
        self.refresh_due = True

    def _say_what_was_quarantined(self, items: Sequence[Item]) -> None:
        """One line a commit, for garbage may come in any number."""
        bad = [item for item in items if item.reason is not None]
        if bad:
            log.warning(
                "Partition %d: %d entries were put into quarantine; the first, %s of %s: %s",
                *(self.number, len(bad), bad[0].id or "a member", bad[0].source, bad[0].reason),
            )

    def _one_by_one(self, items: Sequence[Item]) -> None:
        for item in items:
            try:
                self._send([item], at_once=1)
            except _OUTSIDE_FAULTS:
                raise
            except Exception as error:
                log.exception(
                    "Partition %d: the event %s of instance %r is quarantined.", self.number, item.id, item.instance
                )
                item.reason = None
                self._send([item], fault=f"{type(error).__name__}: {error}", at_once=1)
            self.finish()

    def _send(
        self,
        items: Sequence[Item],
        fault: str | None = None,
        *,
        at_once: int = AT_ONCE,
        marks: Mapping[str, str] | None = None,
    ) -> None:
        """`fault`: why the only item cannot be applied, and is not. `at_once`: parked events that one instance gets."""
        cursors = _cursors(items)
        self._check_room(cursors)
        now = self._date(cursors)
        instances = self._load(items, tolerant=fault is not None)
        problems = self._programs.load(self.link, [instance.definition for instance in instances.values()])
        backlogs = self._backlogs(items, instances, at_once)
        self._lose_vanished([*items, *(item for backlog in backlogs.values() for item in backlog.items)])
        context = Context(now, self._minter(), self._options.lease_ms, self._options.max_deliveries)
        drafts: dict[str, Draft] = {}
        resume = Resume(self.keys, backlogs, now, lambda draft, item: self._decide(draft, item, None, context))
        for item in items:
            instance = instances.get(item.instance)
            if instance is None or (item.incarnation is not None and instance.incarnation != item.incarnation):
                if fault is not None:
                    item.reason = fault
                self._drop(item, drafts)
                continue
            draft = drafts.get(instance.id) or drafts.setdefault(instance.id, Draft(instance))
            problem = self._problem(instance, problems) if problems or instance.damage is not None else None
            if type(item.event) in RESUMPTIONS:
                resume(draft, cast("Resumption", item.event), problem, fault)
            elif fault is not None:
                blame(draft, item, now, fault)
            else:
                self._decide(draft, item, problem, context)
        items = [*items, *resume.replayed]
        changed = list(drafts.values())
        self._register_streams(changed)
        reader = SlotReader(self.link, self.keys, self._caches.values)
        reader.prepare(changed)
        commands = write(self.keys, changed, items, cursors, now, reader.value, self.window.streams)
        self._dispatched_at.put(self._commits.next, now)
        self._commits.send(commands, {**self.cursors, **cursors, **(marks or {}), "now": now, "minted": context.minted})
        self.cursors |= cursors
        self._batch = Batch(items, changed, dict(self.cursors), now, self._monotonic())

    def _check_room(self, cursors: Mapping[str, str]) -> None:
        """Raises `PartitionDamaged` for an inbox entry that no entry can follow: nothing more would be accepted."""
        for source, key in (("events", self.keys.events), ("starts", self.keys.starts)):
            if source in cursors and entry_key(cursors[source])[0] > HIGHEST_ID:
                raise PartitionDamaged(f"Partition {self.number}: {exhausted(key, cursors[source])}")

    def _date(self, cursors: Mapping[str, str]) -> int:
        """Now, but not before what is answered: our idea of the server's time is half a round trip old.

        An id far ahead is no time but a strange hand's, and moves nothing.
        """
        now = self._clock.now()
        for cursor in cursors.values():
            written = entry_key(cursor)[0]
            if now < written < now + _CLOCK_ERROR_MS:
                now = written
        self._clock.not_before(now)
        return now

    def _decide(self, draft: Draft, item: Item, problem: Problem | None, context: Context) -> None:
        event = cast("engine.Event | None", item.event)  # resumptions went another way
        if event is None:
            return
        stopped = draft.status == "blocked"
        if problem is not None and draft.status in ENDED:
            item.stale = True
            item.dropped_keys = references(item)
        elif (stopped or problem is not None) and isinstance(event, CancelMessage):
            cancel(draft, event, context)
        elif stopped:
            park(draft, item)
        elif problem is not None:
            block(draft, context.now, problem)
            park(draft, item)
        else:
            if isinstance(event, SignalMessage) and (refusal := _refusal(draft, item, event)):
                item.reason = refusal
                item.expiring_keys = references(item)
                return
            program = self._programs.get(draft.instance.definition)
            if program is None:
                raise RuntimeError(f"definition {draft.instance.definition} is loaded but not there")
            engine.apply(draft, program, event, context)

    def _backlogs(self, items: Sequence[Item], instances: Mapping[str, Instance], at_once: int) -> dict[str, Backlog]:
        """What is parked for the blocked instances that are to go on."""
        ids = {item.instance for item in items if type(item.event) in RESUMPTIONS}
        blocked = [found for id in ids if (found := instances.get(id)) is not None and found.status == "blocked"]
        return read_backlogs(self.link, self.keys, blocked, at_once)

    def _problem(self, instance: Instance, problems: Mapping[str, str]) -> Problem | None:
        if instance.damage is not None:
            return Problem(instance.damage)
        reason = problems.get(instance.definition)
        return None if reason is None else Problem(reason, lacks_definition=True)

    def _lose_vanished(self, items: Sequence[Item]) -> None:
        """What names a large value that ran out, for nobody was there to adopt it, or is about to.

        A result counts as a lost delivery; a signal, which can only come from quarantine then, goes back there.
        """
        large = [
            (item, item.event, key)
            for item in items
            if isinstance(item.event, ResultMessage | SignalMessage)
            for key in references(item)
        ]
        if not large:
            return
        replies = exchange(self.link, [("PTTL", key) for _, _, key in large])
        for (item, event, _), reply in zip(large, replies, strict=True):
            left = raise_error(reply)
            if left == _NO_TTL or left > _ADOPTABLE_MS:
                continue
            if isinstance(event, ResultMessage):
                item.event = event._replace(outcome="lost", value=None)
            else:
                item.event = None
                item.reason = "Its payload is gone: a large one is kept for an hour in quarantine. Send it anew."

    def _minter(self) -> Callable[[int], str]:
        prefix = f"{self.number}-{self._token}-{self._commits.next}-"
        return lambda number: f"{prefix}{number}"

    # -- instances --------------------------------------------------------------------------------

    def _load(self, items: Sequence[Item], *, tolerant: bool) -> dict[str, Instance]:
        """The items' instances. Unreadable ones raise `MessageError`, or are passed over if `tolerant`."""
        found: dict[str, Instance] = {}
        missing: dict[str, None] = {}
        for item in items:
            if item.event is None and not item.instance:
                continue
            if type(item.event) is UnblockMessage:  # a person may have mended its records
                self._caches.instances.remove(item.instance)
            cached = self._caches.instances.get(item.instance)
            if cached is None or (item.incarnation is not None and cached.incarnation != item.incarnation):
                missing[item.instance] = None
            else:
                found[item.instance] = cached
        for id, loaded in load_instances(self.link, self.keys, missing).items():
            if not isinstance(loaded, MessageError):
                found[id] = loaded
            elif not tolerant:
                raise loaded
        return found

    def _drop(self, item: Item, drafts: Mapping[str, Draft]) -> None:
        """An event of an incarnation that is gone: counted; from the raw stream, quarantined."""
        if item.event is None or item.reason is not None:
            return
        if item.source == "signals":
            item.reason = f"No instance {item.instance!r} is known."
        elif item.source in ("events", "starts"):
            item.stale = True
            item.dropped_keys = references(item)

    def _keep(self, draft: Draft) -> None:
        incarnation = draft.instance.incarnation
        self._count_settled(draft)
        instance = draft.merge()
        if instance.status in ENDED or instance.damage is not None:
            self._caches.instances.remove(instance.id)
        else:
            self._caches.instances.put(instance.id, instance)
            for slot, value in draft.outputs.items():
                self._caches.values.put(incarnation, slot, value)
        for due in draft.timers.values():
            if due is not None and (self.next_due is None or due < self.next_due):
                self.next_due = due
        for dispatch in draft.dispatches:
            self.window.dispatched(dispatch.call.stream)

    def _count_settled(self, draft: Draft) -> None:
        """Makes room in the window for what is no longer handed out. To be called before the draft is merged."""
        state = draft.instance.state
        for name, after in draft.changes.items():
            before = state.get(name)
            if type(before) is Token and before.dispatch:
                program = self._programs.get(draft.instance.definition)
                if program is not None and (type(after) is not Token or after.dispatch != before.dispatch):
                    stream = program.stream(before.node)
                    if stream is not None:
                        self.window.settled(stream)

    def _settled(self, item: Item, now: int) -> None:
        """Measures a completed step from the commit that dispatched it, if that was not too long ago."""
        event = item.event
        if isinstance(event, ResultMessage) and event.outcome == "completed" and item.reason is None:
            at = self._dispatched_at.get(int(event.dispatch.split("-")[2]))
            if at is not None:
                self._metrics.step_latency_seconds.observe((now - at) / 1000)

    def _register_streams(self, drafts: Sequence[Draft]) -> None:
        """Makes a queue known before the first task enters its stream: leases are judged on known streams only."""
        streams = {d.call.stream for draft in drafts for d in draft.dispatches}
        new = streams - self._known_streams
        if new:
            call(self.link, "SADD", self._queues_key, *sorted(new))
            self._known_streams |= new


def _refusal(draft: Draft, item: Item, signal: SignalMessage) -> str | None:
    """Why a signal goes to quarantine instead of to its instance, where a client's script could not know."""
    if item.source == "signals" and draft.status in ENDED:
        return f"The instance has ended: {draft.status}."
    queue = draft.queue(signal.name)
    if queue.next - queue.first >= SIGNALS_BUFFERED:
        return f"{SIGNALS_BUFFERED} signals {signal.name!r} are buffered and nobody has taken them; that is the limit."
    return None


def _cursors(items: Sequence[Item]) -> dict[str, str]:
    return {item.source: item.id for item in items if item.source in CURSORS}
