"""The work bench of a child: begins the deliveries it is given as slots come free, stops them, posts how they ended.

    waiting ──▶ running ──▶ posted ──▶ saved
       │           └── stopped (timed out, revoked, returned): a coroutine is cancelled; a thread is abandoned,
       │               its result is dropped and its slot stays taken until it ends
       └── handed back: drained, or no slot came free within a second

A posted delivery is still held, and its lease renewed, until the server has its result.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import copy_context
from typing import Final

from headrace.tasks import AnyTask
from headrace_broker import messages
from headrace_broker.clock import ServerClock
from headrace_broker.errors import MessageError, TaskTimedOut
from headrace_broker.messages import Failure, Outcome, TaskMessage
from headrace_broker.tasks import Delivery
from headrace_broker.values import Value

from . import reports
from .attempt import Attempt, Output, failure_of
from .executors import Executor
from .outbox import Outbox
from .pipe import Held as HeldEntries
from .slots import Held, Place, Slots, Stop
from .wear import Wear

SURPLUS_SECONDS: Final = 1.0
"""How long a delivery without a slot waits, while other workers could run it."""
OUTLIVED_SECONDS: Final = 60.0
"""How long an abandoned task may go on before its child is replaced."""

_log = logging.getLogger("headrace.worker")


class Bench:
    """What a child has in hand. `patience` (seconds) is what a cancelled coroutine gets for cleaning up.

    `changed` is set whenever a slot comes free or a result is saved; `wear` hears of each task that begins; `worn` is
    called, with the reason, when tasks that do not stop hold too many slots; `begins(key, entry)` before an entry
    begins that a snapshot called "not begun".
    """

    def __init__(
        self,
        worker: str,
        slots: int,
        known: Mapping[str, AnyTask],
        outbox: Outbox,
        executor: Executor,
        clock: ServerClock,
        resolve: Callable[[TaskMessage], Awaitable[Value]],
        *,
        patience: float,
        changed: asyncio.Event,
        wear: Wear,
        worn: Callable[[str], None],
        begins: Callable[[str, str], None],
    ) -> None:
        self._worker = worker
        self._slots = Slots(slots)
        self._known = known
        self._outbox = outbox
        self._executor = executor
        self._clock = clock
        self._resolve = resolve
        self._patience = patience
        self._changed = changed
        self._wear = wear
        self._worn = worn
        self._begins = begins
        self._context = copy_context()
        self._loop = asyncio.get_running_loop()
        self._abandoned: set[Place] = set()
        self._closed = False

    @property
    def free(self) -> int:
        """How many deliveries may be fetched now."""
        return 0 if self._closed else max(0, min(self._slots.free, self._wear.room - len(self._slots.waiting)))

    @property
    def unfinished(self) -> list[Held]:
        """What runs and will have a result."""
        return [held for held in self._slots.running.values() if not held.posted and held.stopped != "revoked"]

    @property
    def abandoned(self) -> bool:
        """Whether code runs that cannot be stopped."""
        return not self._slots.idle

    def places(self) -> frozenset[Place]:
        """All that is held."""
        return frozenset(self._slots.held)

    def snapshot(self) -> list[HeldEntries]:
        """All that is held, by stream. May be called from another thread."""
        found: dict[str, HeldEntries] = {}
        for held in _copied(self._slots.held):
            if held is None:
                continue
            row = found.get(held.source.key)
            if row is None:
                row = found[held.source.key] = HeldEntries(held.source.key, [], [])
            if not held.begun:
                held.reported = True  # before the second look at `begun`: see `Held`
            row.entries.append(held.entry)
            row.begun.append(held.begun)
        return list(found.values())

    def close(self) -> None:
        """Begins nothing more and hands back what waits."""
        self._closed = True
        for held in list(self._slots.waiting.values()):
            self._hand_back(held)

    # Deliveries.

    def receive(self, deliveries: Iterable[Delivery]) -> None:
        """Takes what was read. What is held already is left alone."""
        for delivery in deliveries:
            place = (delivery.source.partition.number, delivery.entry)
            if place not in self._slots.held:
                self._receive(delivery, place)
        self._pump()

    def _receive(self, delivery: Delivery, place: Place) -> None:
        source, entry, raw = delivery
        try:
            message = messages.expect(messages.unpack(raw or b""), TaskMessage)
        except MessageError as error:
            self._slots.held[place] = None
            self._outbox.garbage(source, entry, raw or b"", str(error))
            return
        held = self._slots.held[place] = Held(place, source, message)
        if self._closed:
            self._hand_back(held)
        elif message.task not in self._known:
            self._post(held, "unknown")
        else:
            self._slots.wait(held)

    def _pump(self) -> None:
        """Begins what has a slot; what has none may wait for a moment."""
        while (held := self._slots.next()) is not None:
            self._begin(held)
        for held in self._slots.waiting.values():
            if held.timer is None and not held.alone:
                held.timer = self._loop.call_later(SURPLUS_SECONDS, self._hand_back, held)

    def _hand_back(self, held: Held) -> None:
        self._slots.give_up(held)
        self._post(held, "returned")

    def _begin(self, held: Held) -> None:
        message = held.message
        held.begun = True
        if held.reported:
            self._begins(held.source.key, held.entry)
        held.disarm()
        held.began = self._clock.now()
        if message.timeout_ms > 0:
            self._outbox.started(held.source, held.entry, reports.started(message, held.began, self._worker))
            held.timer = self._loop.call_later(message.timeout_ms / 1000, self.stop, held, "timed_out")
        held.attempt = Attempt(self._known[message.task], message)
        held.running = self._loop.create_task(self._run(held, held.attempt), context=self._context.copy())
        self._wear.begun()

    async def _run(self, held: Held, attempt: Attempt) -> None:
        ended: Output | Failure | None
        try:
            ended = await attempt.run(self._resolve, self._executor)
        except asyncio.CancelledError as error:
            ended = None if held.stopped else failure_of(error, attempt.task)
        self._finish(held, attempt, ended)

    def _finish(self, held: Held, attempt: Attempt, ended: Output | Failure | None) -> None:
        if not held.posted:
            self._end(held, ended)
        held.disarm()
        thread = attempt.thread
        if thread is None or thread.done():
            self._release(held)
        else:
            thread.add_done_callback(lambda ended: self._release_thread(held, ended))
            self._abandon(held)

    # Ends.

    def _end(self, held: Held, ended: Output | Failure | None) -> None:
        """Posts how it ended, as it counts now: what timed out or was revoked in the meantime has no late result."""
        match held.stopped:
            case "revoked":
                held.posted = True
                self._slots.held.pop(held.place, None)
            case "timed_out":
                text = reports.time_out(held.message)
                self._post(held, "timed_out", failure=Failure(TaskTimedOut.__name__, text))
            case _:
                if isinstance(ended, Output):
                    self._post(held, "completed", ended)
                elif ended is not None:
                    self._post(held, "failed", failure=ended)
                else:
                    self._post(held, "returned")

    def _post(self, held: Held, outcome: Outcome, output: Output | None = None, failure: Failure | None = None) -> None:
        held.posted = True
        held.disarm()
        value, route, large = (None, None, None) if output is None else output
        result = reports.ended(
            held.message,
            outcome,
            self._worker,
            began=held.began,
            duration_ms=max(0, self._clock.now() - held.began) if held.begun else 0,
            value=value,
            route=route,
            failure=failure,
        )
        self._outbox.result(held.source, held.entry, result, large)

    def saved(self, places: list[Place]) -> None:
        """The server has settled these."""
        for place in places:
            self._slots.held.pop(place, None)
        self._changed.set()

    def _release(self, held: Held) -> None:
        """Its code has ended, so its slot is free."""
        self._slots.release(held)
        self._changed.set()
        if self._slots.waiting:
            self._pump()

    def _release_thread(self, held: Held, thread: asyncio.Future[object]) -> None:
        thread.exception()  # seen, so that asyncio does not complain of it
        self._abandoned.discard(held.place)
        self._release(held)

    # Stopping.

    def revoke(self, places: Iterable[Place]) -> None:
        """Stops these, if they are held and have no result yet: it would count for nothing."""
        for place in places:
            held = self._slots.held.get(place)
            if held is None or held.posted:
                continue
            if self._slots.give_up(held):
                held.disarm()
                del self._slots.held[place]
                self._changed.set()
                self._pump()
            else:
                self.stop(held, "revoked")

    def stop(self, held: Held, why: Stop) -> None:
        """Stops a running one: cancels a coroutine, abandons a thread."""
        if held.stopped is not None or held.posted or held.running is None or held.attempt is None:
            return
        held.stopped = why
        held.disarm()
        held.attempt.ask_to_stop()
        held.running.cancel()
        held.running.add_done_callback(lambda _: self._finish_unbegun(held))
        if held.attempt.thread is None:
            held.timer = self._loop.call_later(self._patience, self._outstay, held)

    def _finish_unbegun(self, held: Held) -> None:
        """A coroutine that is cancelled before its first step never runs: not even `_run`, which frees the slot."""
        if self._slots.running.get(held.place) is held and held.attempt is not None and held.attempt.thread is None:
            self._finish(held, held.attempt, None)

    def _outstay(self, held: Held) -> None:
        """A coroutine that has not ended although it was cancelled."""
        if not held.posted:
            self._end(held, None)
        self._abandon(held)
        assert held.running is not None
        held.running.add_done_callback(lambda _: self._abandoned.discard(held.place))

    def _abandon(self, held: Held) -> None:
        self._abandoned.add(held.place)
        self._changed.set()
        if 2 * len(self._abandoned) >= self._slots.total:
            self._worn(f"{len(self._abandoned)} of its {self._slots.total} slots are held by tasks that do not stop")
        else:
            self._loop.call_later(OUTLIVED_SECONDS, self._outlive, held.place)

    def _outlive(self, place: Place) -> None:
        if place in self._abandoned:
            self._worn(f"a task still runs {OUTLIVED_SECONDS:g} s after it was stopped")


def _copied(held: Mapping[Place, Held | None]) -> list[Held | None]:
    """The values, though another thread may change the map meanwhile (a collection of garbage can let it in)."""
    while True:
        try:
            return list(held.values())
        except RuntimeError:
            continue
