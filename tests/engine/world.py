"""An instance in a tiny model of the world, so that tests read like stories.

    world = World(task("charge"), task("settle")).start()
    world.complete("charge", 100)
    assert world.where == {"settle": "dispatched"}

The world is what a commit would leave in Redis: packed state, outputs, timers, hand-outs, large values, history. After
every commit it checks what must always hold (`World.check`), so a story need only tell what is its own.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import count
from typing import Any, Final, cast

from engine.flows import Step, define, payload

from headrace_broker import history, records, values, wire
from headrace_broker.definitions import Definition
from headrace_broker.durations import Duration, parse_duration
from headrace_broker.history import Entry
from headrace_broker.instances import ENDED
from headrace_broker.messages import (
    CancelMessage,
    Failure,
    Outcome,
    ResultMessage,
    SignalMessage,
    StartedMessage,
    StartMessage,
)
from headrace_broker.records import Counters, Frame, Record, Token
from headrace_broker.values import Composite, Inline, Output, Reference, Value
from headrace_orchestrator.engine.apply import Event, TimerFired, apply
from headrace_orchestrator.engine.model import Context, Dispatch, Draft, Instance, TimerKey
from headrace_orchestrator.engine.nodes import KINDS
from headrace_orchestrator.engine.program import Program

INSTANCE: Final = "order-1"
INCARNATION: Final = "inc"
PHASES: Final = {
    records.DISPATCHED: "dispatched",
    records.BACKOFF: "backoff",
    records.SLEEPING: "sleeping",
    records.AWAITING: "awaiting",
    records.FAILED: "failed",
    records.STOPPED: "stopped",
}
MAX_COMMANDS: Final = 512
"""Of one decision (invariant 6)."""


class World:
    """`tasks` are the hand-outs that lie in task streams or run, by dispatch id; `kept` and `loose` the large values
    that a commit adopted, or that still have their TTL; `old_timers` those that were set once and are no more."""

    def __init__(
        self, *flow: Step | Definition, lease: Duration = "10s", max_deliveries: int = 5, now: int = 1_000_000
    ) -> None:
        steps = [part for part in flow if isinstance(part, Step)]
        self.definition = define(*steps) if steps else cast(Definition, flow[0])
        self.program = Program.load(self.definition, KINDS)
        self.now = now
        self.lease_ms = parse_duration(lease)
        self.max_deliveries = max_deliveries
        header = {
            "inc": INCARNATION,
            "flow": self.definition.flow,
            "def": self.definition.digest,
            "status": "queued",
            "created": str(now),
        }
        self.instance = Instance(INSTANCE, INCARNATION, header["flow"], header["def"], header, {})
        self.stored: dict[str, bytes] = {}
        self.outputs: dict[str, Value] = {}
        self.timers: dict[TimerKey, int] = {}
        self.old_timers: list[TimerKey] = []
        self.tasks: dict[str, Dispatch] = {}
        self.revoked: list[str] = []
        self.loose: set[str] = set()
        self.kept: set[str] = set()
        self.history: list[Entry] = []
        self.error: list[str] = []
        self.stale = 0
        self._commits = count(1)
        self._values = count(1)

    # -- what happens -----------------------------------------------------------------------------

    def start(self, value: object = "input") -> World:
        self.commit(self.started(value))
        return self

    def complete(self, node: str, value: object = None, *, route: str | None = None) -> None:
        """A value that is bytes is taken as it is, so that it can be a reference."""
        self.commit(self.result(node, "completed", value=value, route=route))

    def fail(self, node: str, type: str = "ValueError", **control: Any) -> None:
        """`control`: `may_retry`, `retry_after_ms`."""
        self.commit(self.result(node, "failed", failure=Failure(type, "it broke", "Traceback …", **control)))

    def time_out(self, node: str) -> None:
        self.commit(self.result(node, "timed_out", failure=Failure("TaskTimedOut", "too slow")))

    def lose(self, node: str, times: int = 1) -> None:
        for _ in range(times):
            self.commit(self.result(node, "lost"))

    def hand_back(self, node: str) -> None:
        self.commit(self.result(node, "returned"))

    def not_known(self, node: str) -> None:
        self.commit(self.result(node, "unknown"))

    def begin(self, node: str, began: int | None = None) -> None:
        """The attempt reports its start, as attempts with a time-out do."""
        task = self.task(node)
        began = self.now if began is None else began
        self.commit(StartedMessage(INSTANCE, INCARNATION, task.dispatch, task.token, began, "w1"))

    def signal(self, name: str, value: object = None) -> None:
        self.commit(SignalMessage(INSTANCE, name, _value(value), actor="ann"))

    def cancel(self, reason: str = "changed my mind") -> None:
        self.commit(CancelMessage(INSTANCE, reason, actor="ann"))

    def end(self, how: str) -> None:
        """Brings an instance of one handed-out task to a status in which instances end."""
        match how:
            case "completed":
                self.complete(self.handed_out[0])
            case "failed":
                self.fail(self.handed_out[0])
            case _:
                self.cancel()
        assert self.status == how

    def advance(self, duration: Duration) -> None:
        """Lets time pass; what falls due meanwhile fires, each at its time."""
        until = self.now + parse_duration(duration)
        while self.timers and min(self.timers.values()) <= until:
            self.fire_next()
        self.now = until

    def fire_next(self) -> None:
        """Lets time pass until the earliest timer is due, and fires it."""
        due, key = min((due, key) for key, due in self.timers.items())
        self.now = max(self.now, due)
        self.commit(TimerFired(*key))

    # -- events, for those that come late, twice or together --------------------------------------

    def started(self, value: object = "input") -> StartMessage:
        return StartMessage(
            INSTANCE, INCARNATION, self.definition.flow, self.definition.digest, _value(value), actor="ann"
        )

    def result(
        self,
        node: str | Dispatch,
        outcome: Outcome,
        *,
        value: object = None,
        failure: Failure | None = None,
        route: str | None = None,
    ) -> ResultMessage:
        """The report on a hand-out, by default the one of that node."""
        task = self.task(node) if isinstance(node, str) else node
        carried = _value(value) if outcome == "completed" else None
        return ResultMessage(
            *(INSTANCE, INCARNATION, task.dispatch, task.token, outcome, carried, failure, route),
            *(self.now, 7, "w1"),
        )

    def large(self) -> Value:
        """A reference to a value just written, which lasts an hour unless a commit adopts it."""
        key = f"v:{next(self._values)}"
        self.loose.add(key)
        return values.reference(key, 20_000)

    # -- one commit -------------------------------------------------------------------------------

    def commit(self, *events: Event) -> Draft:
        """Decides the events together, commits, checks."""
        header, state = dict(self.instance.header), dict(self.instance.state)
        commit = next(self._commits)
        forgotten, draft = (self._decide(events, commit) for _ in range(2))
        assert forgotten == draft, "the same events gave two drafts: the engine is not pure"
        assert (self.instance.header, self.instance.state) == (header, state), "a draft changed its instance"
        if len(events) == 1:
            assert commands(draft) <= MAX_COMMANDS
        for event in events:
            if isinstance(event, ResultMessage):
                self.tasks.pop(event.dispatch, None)
            elif isinstance(event, TimerFired):
                self.timers.pop(TimerKey(*event), None)
        self._store(draft)
        self.check()
        return draft

    def _decide(self, events: tuple[Event, ...], commit: int) -> Draft:
        draft = Draft(self.instance)
        context = Context(self.now, lambda n: f"0-feed-{commit}-{n}", self.lease_ms, self.max_deliveries)
        for event in events:
            apply(draft, self.program, event, context)
        return draft

    def _store(self, draft: Draft) -> None:
        for name, record in draft.changes.items():
            if record is None:
                self.stored.pop(name, None)
            else:
                self.stored[name] = records.pack(record)
        self.outputs |= draft.outputs
        for key, due in draft.timers.items():
            self.old_timers.append(key)
            if due is None:
                self.timers.pop(key, None)
            else:
                self.timers[key] = due
        self.tasks |= {task.dispatch: task for task in draft.dispatches}
        for revoke in draft.revokes:
            self.tasks.pop(revoke.dispatch, None)
            self.revoked.append(revoke.dispatch)
        self._store_large(draft)
        self.history += history.unpack(history.pack(draft.history)) if draft.history else []
        self.stale += draft.stale
        if draft.error is not None:
            self.error = wire.unpack(draft.error)
        draft.merge()
        if self.status in ("completed", "cancelled"):
            assert not self.tokens, "an instance that ended so holds no position"
            self.stored.clear()  # as the writer deletes the whole hash
            self.instance.state.clear()  # as the cache forgets what ended

    def _store_large(self, draft: Draft) -> None:
        for key in draft.adopt:
            assert key in self.loose, f"{key} was adopted, but it is not there to adopt"
            self.loose.remove(key)
            self.kept.add(key)
        for key in draft.drop:
            assert key not in self.kept, f"{key} was deleted, but the instance keeps it"
            self.loose.discard(key)

    # -- what it looks like -----------------------------------------------------------------------

    @property
    def status(self) -> str:
        return self.instance.status

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def tokens(self) -> dict[int, Token]:
        return {int(name[1:]): record for name, record in self.instance.state.items() if isinstance(record, Token)}

    @property
    def frames(self) -> dict[int, Frame]:
        return {int(name[1:]): record for name, record in self.instance.state.items() if isinstance(record, Frame)}

    @property
    def where(self) -> dict[str, str]:
        """Per node that holds a token: the token's phase."""
        return {self.name(token.node): PHASES[token.phase] for token in self.tokens.values()}

    @property
    def result_value(self) -> Any:
        """What the instance came to, as a client reads it."""
        return self.read(self.outputs[self.instance.header["result"]])

    @property
    def story(self) -> list[str]:
        """The kinds of the history's entries."""
        return [entry.kind for entry in self.history]

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """The history's entries of a kind, their fields by name, nodes as names."""
        found = [entry.named() for entry in self.history if entry.kind == kind]
        return [{**fields, "node": self.name(fields["node"])} if "node" in fields else fields for fields in found]

    def name(self, node: int) -> str:
        return self.definition.nodes[node].name

    def task(self, node: str) -> Dispatch:
        """The one hand-out of that node."""
        found = [task for task in self.tasks.values() if task.node == node]
        assert len(found) == 1, f"{node} is handed out {len(found)} times; handed out are {self.handed_out}"
        return found[0]

    @property
    def handed_out(self) -> list[str]:
        return sorted(task.node for task in self.tasks.values())

    def given(self, node: str | Dispatch) -> Any:
        """What a hand-out gets as input."""
        task = self.task(node) if isinstance(node, str) else node
        return self.read(self.outputs[task.slot])

    @property
    def due_in(self) -> int:
        """Milliseconds until the earliest timer."""
        return min(self.timers.values()) - self.now

    def read(self, value: Value) -> Any:
        """What a worker makes of a value; a large one shows as its key."""
        match values.parse(value):
            case Inline("j", data):
                return json.loads(data)
            case Inline(_, data):
                return wire.unpack(data)
            case Reference(key=key):
                return f"@{key}"
            case Output(slot):
                return self.read(self.outputs[slot])
            case Composite("pair", _, parts):
                return tuple(self.read(part) for part in parts)
            case Composite(_, names, parts):
                return {name: self.read(part) for name, part in zip(names, parts, strict=True)}

    # -- what must always hold --------------------------------------------------------------------

    def check(self) -> None:
        state, tokens = self.instance.state, self.tokens
        assert {name: records.unpack(name, data) for name, data in self.stored.items()} == state
        dispatched = {token.dispatch for token in tokens.values() if token.phase == records.DISPATCHED}
        assert dispatched == set(self.tasks), "task streams hold just what the tokens wait for"
        assert _counters(state).active == len(dispatched)
        armed = {TimerKey(id, token.timer): token.due for id, token in tokens.items() if token.timer}
        assert armed == self.timers, "timers and tokens name each other"
        for id, token in tokens.items():
            assert self._can_go_on(id, token), f"token {id} waits for nothing: {token}"
        waiters = {record for name, record in state.items() if name[0] == "w" and isinstance(record, int)}
        assert waiters <= set(tokens), "who waits for a signal is there"
        for id, token in tokens.items():
            waits = token.phase in (records.AWAITING, records.STOPPED)
            assert waits or id not in waiters, f"token {id} has gone on and still waits for a signal"
        for id, frame in self.frames.items():
            positions: list[Token | Frame] = [*tokens.values(), *self.frames.values()]
            inside = [position for position in positions if position.frame == id]
            assert frame.remaining == len(inside), f"frame {id} waits for {frame.remaining} branches: {inside}"
        self._check_status(dispatched)
        steps = Counter(entry.fields[3] for entry in self.history if entry.code == history.COMPLETED)
        assert not steps or max(steps.values()) == 1, "a step completed twice"

    def _can_go_on(self, id: int, token: Token) -> bool:
        match token.phase:
            case records.DISPATCHED:
                return token.dispatch != ""
            case records.BACKOFF | records.SLEEPING:
                return token.timer > 0 and token.dispatch == ""
            case records.AWAITING:
                signal = self.definition.nodes[token.node].params["signal"]
                return self.instance.state.get(records.waiter_field(token.place, signal)) == id
            case _:
                return self.status == "failed" and not token.dispatch and not token.timer

    def _check_status(self, dispatched: set[str]) -> None:
        if self.ended:
            assert not self.timers
            assert not self.tasks
            assert self.story.count("ended") == 1
            assert self.history[-1].kind == "ended"
        elif self.tokens:
            assert self.status == ("running" if dispatched else "waiting")
        else:
            assert self.status == "queued"
            assert "started" not in self.story


def commands(draft: Draft) -> int:
    """The commands of a commit that grow with the decision; state, outputs and history are one each."""
    return len(draft.dispatches) + len(draft.revokes) + len(draft.timers) + len(draft.adopt) + len(draft.drop) + 4


def _counters(state: dict[str, Record]) -> Counters:
    return cast(Counters, state.get(records.COUNTERS, Counters()))


def _value(value: object) -> Value:
    return value if isinstance(value, bytes) else payload(value)
