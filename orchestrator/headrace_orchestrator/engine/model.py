"""What the engine works on: an instance as committed, and the draft of what a batch will make of it.

An `Instance` is changed only by `Draft.merge`, after the commit. A batch that fails is forgotten with its drafts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar, cast

from headrace_broker import records
from headrace_broker.definitions import TaskCall
from headrace_broker.records import Counters, Frame, Record, SignalQueue, Token
from headrace_broker.values import Value

R = TypeVar("R", bound=Record)


@dataclass(slots=True)
class Instance:
    """One use of an instance id, as the last commit left it. `header` is as in `instances`, `state` as in `records`."""

    id: str
    incarnation: str
    flow: str
    definition: str
    header: dict[str, str]
    state: dict[str, Record]
    damage: str | None = None
    """Why the state could not be read; it is empty then."""

    @property
    def status(self) -> str:
        return self.header["status"]

    @property
    def created(self) -> int:
        return int(self.header["created"])


class Dispatch(NamedTuple):
    """Hand a task out. The writer puts the value of `slot` into the message."""

    number: int
    dispatch: str
    token: int
    node: str
    call: TaskCall
    slot: str
    step: int
    attempt: int
    losses: int
    alone: bool


class Revoke(NamedTuple):
    """Take a hand-out back: out of its stream (None: nobody knows which), and tell who runs it."""

    dispatch: str
    stream: str | None


class TimerKey(NamedTuple):
    """Names a timer within its instance."""

    token: int
    number: int


@dataclass(slots=True)
class Context:
    """What the engine may know of the world in one batch.

    `now` in ms; `mint(n)` makes the n-th dispatch id of this batch's commit; `lease_ms` is the workers' lease, which a
    guard timer adds; a step whose deliveries were lost `max_deliveries` times fails.
    """

    now: int
    mint: Callable[[int], str]
    lease_ms: int
    max_deliveries: int
    minted: int = 0

    def next_dispatch(self) -> tuple[int, str]:
        number = self.minted
        self.minted = number + 1
        return number, self.mint(number)


@dataclass(slots=True)
class Tally:
    """`Counters` while they move: one event moves several, several times."""

    tokens: int
    frames: int
    steps: int
    timers: int
    active: int

    def record(self) -> Counters:
        return Counters(self.tokens, self.frames, self.steps, self.timers, self.active)


@dataclass(slots=True)
class Draft:
    """An overlay on an instance, and the commands that go with it.

    `changes` maps state fields to records (None: gone); `outputs` maps slots to values to write; `timers` maps timers
    to due times (None: gone); `adopt` and `drop` are keys of large values to keep or delete; `stale` counts results
    that invariant 2 refused; `error` is the header's field of that name; `parked` are events kept for a
    blocked instance, `unparked` counts those that leave the head of its list (None: it does not go on in this batch).
    `continues`: the rest of them follows in another commit. `lacks_definition` True: it goes on by itself when that
    comes; False: it does not, or not any more.
    """

    instance: Instance
    header: dict[str, str] = field(default_factory=dict[str, str])
    changes: dict[str, Record | None] = field(default_factory=dict[str, "Record | None"])
    outputs: dict[str, Value] = field(default_factory=dict[str, bytes])
    timers: dict[TimerKey, int | None] = field(default_factory=dict[TimerKey, "int | None"])
    dispatches: list[Dispatch] = field(default_factory=list[Dispatch])
    revokes: list[Revoke] = field(default_factory=list[Revoke])
    adopt: list[str] = field(default_factory=list[str])
    drop: list[str] = field(default_factory=list[str])
    history: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    stale: int = 0
    error: bytes | None = None
    parked: list[bytes] = field(default_factory=list[bytes])
    unparked: int | None = None
    continues: bool = False
    lacks_definition: bool | None = None
    counters: Tally = field(init=False)

    def __post_init__(self) -> None:
        before = self.instance.state.get(records.COUNTERS)
        self.counters = Tally(*before) if isinstance(before, Counters) else Tally(*Counters())

    def seal(self) -> None:
        """Writes the counters down, if they moved. The engine does, after each event."""
        counters = self.counters.record()
        if counters != self.get(records.COUNTERS, Counters):
            self.changes[records.COUNTERS] = counters

    @property
    def status(self) -> str:
        return self.header.get("status") or self.instance.status

    def get(self, name: str, kind: type[R]) -> R | None:
        """The record in a field, None if there is none."""
        record = self.changes[name] if name in self.changes else self.instance.state.get(name)
        return cast("R | None", record)

    def token(self, token: int) -> Token | None:
        return self.get(records.token_field(token), Token)

    def frame(self, frame: int) -> Frame | None:
        return self.get(records.frame_field(frame), Frame)

    def queue(self, signal: str) -> SignalQueue:
        return self.get(records.queue_field(signal), SignalQueue) or SignalQueue()

    def tokens(self) -> list[tuple[int, Token]]:
        """All tokens, in the order of their numbers."""
        view = {**self.instance.state, **self.changes}
        found = [(int(name[1:]), record) for name, record in view.items() if isinstance(record, Token)]
        return sorted(found)

    def put(self, name: str, record: Record) -> None:
        self.changes[name] = record

    def remove(self, name: str) -> None:
        self.changes[name] = None

    def merge(self) -> Instance:
        """Makes the draft the instance's committed form."""
        instance = self.instance
        instance.header.update(self.header)
        for name, record in self.changes.items():
            if record is None:
                instance.state.pop(name, None)
            else:
                instance.state[name] = record
        return instance
