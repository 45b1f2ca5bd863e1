"""The keeper's view of its children: one `Cot` for each child process that should live, and the `Child` in it.

No server here: listening, judging and spawning only, over an injected spawner and clock.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from random import Random
from typing import Final, Protocol

from headrace_broker.backoff import Backoff

from .causes import ended, quoted
from .pipe import Begun, Drain, Failed, Frame, PipeError, Ready, Report, Retire, Revoked, Worn
from .slots import Place

WEDGED_SECONDS: Final = 60.0
"""A child that is silent for so long is killed: its reporter is a thread, so the interpreter itself is stuck."""
_BLOCKED_MS: Final = 5000
_SETTLED_SECONDS: Final = 10.0
"""A child that lived so long did not die of its start."""
MAX_LEAVING: Final = 3
"""So many worn children of a cot may finish what they run; then a worn one keeps its place until one is gone."""

_log = logging.getLogger("headrace.worker")


class ChildProcess(Protocol):
    """A child as its keeper sees it. Nothing here blocks."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """Its exit status (negative: the signal), None while it lives."""
        ...

    def receive(self) -> list[Frame]:
        """What it said since. Raises `PipeError`."""
        ...

    def send(self, frame: Frame) -> None: ...

    def kill(self) -> None:
        """SIGKILL."""
        ...

    def last_lines(self) -> list[str]:
        """It is dead: the last that it wrote to stderr."""
        ...

    def close(self) -> None:
        """It is dead: frees what the keeper holds of it."""
        ...

    def fileno(self) -> int:
        """Readable when it has said something; -1 if it will say nothing more."""
        ...


class Spawner(Protocol):
    def spawn(self, consumer: str) -> ChildProcess:
        """A new child, named so in the consumer groups. Raises `OSError`."""
        ...


class Child:
    """What is known of one child process. `partition_of` is by stream's key, and grows."""

    def __init__(self, consumer: str, process: ChildProcess, now: float, partition_of: Mapping[str, int]) -> None:
        self.consumer = consumer
        self.process = process
        self._partition_of = partition_of
        self.born = now
        self.heard = now
        self.ready: Ready | None = None
        self.failed: str | None = None
        self.worn: str | None = None
        """Why it wants to be replaced."""
        self.held: dict[tuple[str, str], bool] = {}
        """By (stream's key, entry): whether it was begun, as last heard."""
        self.report_is_new = False
        self.revoked: set[Place] = set()
        """What it was told to stop and still held when last heard."""
        self.killed: str | None = None
        self._blocked = False

    def listen(self, now: float) -> bool:
        """Takes in what the child said; True if it is ready since."""
        try:
            frames = self.process.receive()
        except PipeError as error:
            self.kill(f"it speaks nonsense ({error})")
            return False
        was_ready = self.ready is not None
        for frame in frames:
            self.heard = now
            match frame:
                case Ready():
                    self.ready = frame
                case Failed(reason):
                    self.failed = reason
                case Report():
                    self._take(frame)
                case Worn(reason):
                    self.worn = reason
                case Begun(key, entry):
                    self.held[key, entry] = True
                case _:
                    self.kill(f"it sent {type(frame).__name__}")
        return self.ready is not None and not was_ready

    def _take(self, report: Report) -> None:
        self.held = {
            (row.key, entry): begun for row in report.held for entry, begun in zip(row.entries, row.begun, strict=True)
        }
        self.revoked &= self._places()
        self.report_is_new = True
        blocked = report.blocked_ms >= _BLOCKED_MS
        if blocked and not self._blocked:
            _log.warning(
                "The event loop of child %d has been blocked for %.1f s. Use `def` for a task that blocks.",
                self.process.pid,
                report.blocked_ms / 1000,
            )
        self._blocked = blocked

    def _places(self) -> set[Place]:
        """What it holds. The same entry may be in several partitions."""
        return {(self._partition_of[key], entry) for key, entry in self.held if key in self._partition_of}

    def by_stream(self) -> dict[str, list[str]]:
        """The entries it holds, by stream's key."""
        found: dict[str, list[str]] = {}
        for key, entry in self.held:
            found.setdefault(key, []).append(entry)
        return found

    def not_begun(self) -> frozenset[tuple[str, str]]:
        """What certainly was not begun."""
        return frozenset(place for place, begun in self.held.items() if not begun)

    def revoke(self, places: Iterable[Place]) -> None:
        chosen = list(places)
        if chosen:
            self.revoked |= self._places().intersection(chosen)
            self.process.send(Revoked(chosen))

    def retire(self) -> None:
        self.process.send(Retire())

    def drain(self, grace_ms: int) -> None:
        self.process.send(Drain(grace_ms))

    def kill(self, why: str) -> None:
        if self.killed is None:
            self.killed = why
            _log.warning("Child %d is killed: %s.", self.process.pid, why)
        self.process.kill()

    def judge(self, now: float) -> None:
        """Kills it if it is wedged."""
        if now - self.heard >= WEDGED_SECONDS:
            self.kill(f"nothing was heard of it for {WEDGED_SECONDS:g} s")

    def __str__(self) -> str:
        return f"{self.consumer} (pid {self.process.pid})"


class Cot:
    """A place for one child; when it dies, another is put in its place.

    A worn child leaves its place to a successor, and finishes what it runs beside it.
    """

    def __init__(self, random: Random, now: float, partition_of: Mapping[str, int]) -> None:
        self.child: Child | None = None
        self.leaving: list[Child] = []
        self.due = now
        """When to spawn, if there is no child."""
        self.deaths = 0
        """How many have died in a row, each soon after its start."""
        self._partition_of = partition_of
        self._backoff = Backoff(random, first=0.1, cap=5.0)
        self._said: list[str] = []

    @property
    def children(self) -> list[Child]:
        return self.leaving if self.child is None else [*self.leaving, self.child]

    def spawn(self, spawner: Spawner, consumer: str, now: float) -> None:
        try:
            process = spawner.spawn(consumer)
        except OSError as error:
            delay = self._backoff.next()
            _log.error("A child cannot be started: %s. The next try is in %.1f s.", error, delay)
            self.due = now + delay
            return
        self.child = Child(consumer, process, now, self._partition_of)

    def make_room(self, now: float) -> None:
        """For a successor, if the child is worn and not too many are leaving."""
        child = self.child
        if child is not None and child.worn is not None and len(self.leaving) < MAX_LEAVING:
            _log.info("Child %s is replaced: %s.", child, child.worn)
            self.leaving.append(child)
            self.child = None
            self.due = now

    def settle(self, child: Child) -> None:
        """The child works: those before it need not."""
        if child is self.child:
            for worn in self.leaving:
                worn.retire()

    def bury(self, child: Child, status: int, now: float) -> None:
        """The child has died: the next comes at once, later if they die young one after the other."""
        child.process.close()
        if child is not self.child:
            self.leaving.remove(child)
            return
        self.child = None
        self.due = now
        if child.worn is not None and status == 0:
            return
        if now - child.born >= _SETTLED_SECONDS:
            self._backoff.reset()
            self.deaths = 0
        self.deaths += 1
        if self.deaths > 1:
            self.due += self._backoff.next()

    def obituary(self, child: Child, status: int, now: float) -> str:
        """Of what the buried child died and what comes next, in words. What it said last is told if it is new."""
        text = f"Child {child} died: {child.failed or ended(status) + '.'}"
        if child.failed is None and (lines := child.process.last_lines()) != self._said:
            self._said = lines
            text += quoted(lines)
        if self.deaths > 1 and self.child is None:
            text += (
                f"\nThat makes {self.deaths} in a row within {_SETTLED_SECONDS:g} s of their start; "
                f"the next is started in {max(0.0, self.due - now):.1f} s."
            )
        return text
