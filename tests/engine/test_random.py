"""Random flows in a random world: results late, twice and out of order, timers racing, losses, cancels.

`World.check` holds after each commit. Here: every instance can be brought to an end, and one that completes gives what
a plain evaluation of its flow gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

from engine.flows import Step, delay, fork, payload, route, task, wait
from engine.world import INCARNATION, INSTANCE, World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace_broker import records
from headrace_broker.definitions import RetrySpec
from headrace_broker.messages import (
    CancelMessage,
    Outcome,
    ResultMessage,
    SignalMessage,
    StartedMessage,
)
from headrace_orchestrator.engine.apply import Event, TimerFired
from headrace_orchestrator.engine.model import Dispatch

SIGNALS = ("red", "blue")
STEPS_TO_THE_END = 400

# -- random flows ---------------------------------------------------------------------------------

Shape = tuple[Any, ...]
"""A step without its name: kind, options, inner scopes."""

retries = st.sampled_from([RetrySpec(), RetrySpec(2, 1000, 2.0, 60_000, 0.5)])
leaves = st.one_of(
    st.tuples(st.just("task"), retries, st.sampled_from([0, 0, "2s"])),
    st.tuples(st.just("delay"), st.sampled_from([0, "1s", "3s"])),
    st.tuples(st.just("wait"), st.sampled_from(SIGNALS), st.sampled_from(["", "", "fail", "default"]), st.booleans()),
)


def scopes(depth: int) -> st.SearchStrategy[list[Shape]]:
    if depth == 0:
        return st.lists(leaves, min_size=1, max_size=2)
    inner = scopes(depth - 1)
    several = st.lists(inner, min_size=1, max_size=3)
    return st.lists(
        st.one_of(
            leaves,
            st.tuples(st.just("fork"), several),
            st.tuples(st.just("route"), several, st.booleans()),
            st.tuples(st.just("late"), st.sampled_from(SIGNALS), inner),
        ),
        min_size=1,
        max_size=3,
    )


class Names:
    """Gives the steps of a flow their names."""

    def __init__(self) -> None:
        self._count = 0

    def steps(self, shapes: Sequence[Shape]) -> list[Step]:
        return [self._step(*shape) for shape in shapes]

    def _step(self, kind: str, *rest: Any) -> Step:
        self._count += 1
        name = f"{kind}{self._count}"
        match kind:
            case "task":
                return task(name, retries=rest[0], timeout=rest[1])
            case "delay":
                return delay(name, rest[0])
            case "wait":
                signal, late, keep_input = rest
                default = "default" if late == "default" else None
                return wait(name, signal, timeout="2s" if late else 0, default=default, keep_input=keep_input)
            case "late":
                return wait(name, rest[0], timeout="1s", on_timeout=self.steps(rest[1]))
            case "fork":
                return fork(name, **{f"b{n}": self.steps(inner) for n, inner in enumerate(rest[0])})
            case _:
                inner = {f"k{n}": self.steps(branch) for n, branch in enumerate(rest[0])}
                if rest[1]:
                    inner["default"] = inner.pop("k0")
                return route(name, 1, **inner)


# -- a random world -------------------------------------------------------------------------------


def output(node: str, given: object) -> str:
    """What the task of a node makes of its input."""
    return f"{node}:{crc32(repr(given).encode()):x}"


class Chaos:
    """Does what a number says. `posted` are events that lie in the inbox, `applied` those that were taken from it."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.world = World(*steps, max_deliveries=2)
        self.branches = {step.name: list(step.inner) for step in _all(steps) if step.kind == "route"}
        self.posted: list[Event] = [self.world.started()]
        self.applied: list[Event] = []

    def do(self, action: int, pick: int) -> None:
        ACTIONS[action % len(ACTIONS)](self, pick)

    def finish(self, pick: int) -> None:
        self.report(pick, "completed")

    def trouble(self, pick: int) -> None:
        outcomes: tuple[Outcome, ...] = ("failed", "timed_out", "returned", "unknown")
        self.report(pick // 8, outcomes[pick % 4])

    def report(self, pick: int, outcome: Outcome) -> None:
        if self.world.tasks:
            self.posted.append(self.result(_picked(list(self.world.tasks.values()), pick), outcome))

    def begin(self, pick: int) -> None:
        if self.world.tasks:
            found = _picked(list(self.world.tasks.values()), pick)
            at = self.world.now
            self.posted.append(StartedMessage(INSTANCE, INCARNATION, found.dispatch, found.token, at))

    def lose(self, pick: int) -> None:
        if self.world.tasks:
            self.apply(self.result(_picked(list(self.world.tasks.values()), pick), "lost"))

    def deliver(self, pick: int) -> None:
        if self.posted:
            self.apply(self.posted.pop(pick % len(self.posted)))

    def deliver_all(self, pick: int) -> None:
        posted, self.posted = self.posted, []
        self.apply(*posted)

    def deliver_again(self, pick: int) -> None:
        if self.applied:
            self.apply(_picked(self.applied, pick))

    def signal(self, pick: int) -> None:
        self.apply(self.message(SIGNALS[pick % len(SIGNALS)]))

    def tick(self, pick: int) -> None:
        if self.world.timers:
            self.world.fire_next()

    def old_timer(self, pick: int) -> None:
        old = [key for key in self.world.old_timers if key not in self.world.timers]
        if old:
            self.world.commit(TimerFired(*_picked(old, pick)))

    def cancel(self, pick: int) -> None:
        if pick % 8 == 0:
            self.posted.append(CancelMessage(INSTANCE, "enough"))

    def apply(self, *events: Event) -> None:
        self.applied += [event for event in events if isinstance(event, (ResultMessage, StartedMessage))]
        self.world.commit(*events)

    def result(self, found: Dispatch, outcome: Outcome) -> ResultMessage:
        keys = self.branches.get(found.node)
        value = output(found.node, self.world.given(found))
        route = keys[crc32(found.node.encode()) % len(keys)] if keys else None
        return self.world.result(found, outcome, value=value, route=route)

    def message(self, signal: str) -> SignalMessage:
        return SignalMessage(INSTANCE, signal, payload(f"!{signal}"))

    def to_the_end(self) -> None:
        """Lets everything that is under way come to pass."""
        world = self.world
        for _ in range(STEPS_TO_THE_END):
            if world.ended:
                return
            if self.posted:
                self.deliver(0)
            elif world.tasks:
                self.apply(self.result(next(iter(world.tasks.values())), "completed"))
            elif world.timers:
                world.fire_next()
            else:
                token = next(token for token in world.tokens.values() if token.phase == records.AWAITING)
                self.apply(self.message(world.definition.nodes[token.node].params["signal"]))
        raise AssertionError(f"no end after {STEPS_TO_THE_END} steps: {world.where}")


ACTIONS: list[Callable[[Chaos, int], None]] = [
    *(Chaos.finish, Chaos.deliver, Chaos.finish, Chaos.deliver, Chaos.finish, Chaos.deliver_all),
    *(Chaos.tick, Chaos.signal, Chaos.begin, Chaos.trouble, Chaos.lose),
    *(Chaos.deliver_again, Chaos.old_timer, Chaos.cancel),
]


def _all(steps: Sequence[Step]) -> list[Step]:
    return [
        found for step in steps for found in (step, *(inner for scope in step.inner.values() for inner in _all(scope)))
    ]


def _picked(things: list[Any], pick: int) -> Any:
    return things[pick % len(things)]


# -- what should come of it -----------------------------------------------------------------------


class Oracle:
    """Evaluates a flow as plain nested calls, given which keys were routed and which waits timed out."""

    def __init__(self, world: World) -> None:
        self.routed = {entry["node"]: entry["key"] for entry in world.entries("routed")}
        self.timed_out = {entry["node"] for entry in world.entries("signal_timed_out")}

    def scope(self, steps: Sequence[Step], given: Any) -> Any:
        for step in steps:
            given = self.step(step, given)
        return given

    def step(self, step: Step, given: Any) -> Any:
        match step.kind:
            case "task":
                return output(step.name, given)
            case "fork":
                return {name: self.scope(inner, given) for name, inner in step.inner.items()}
            case "route":
                return self.scope(step.inner[self.routed[step.name]], given)
            case "signal" if step.name in self.timed_out:
                return self.scope(step.inner["on_timeout"], given) if step.inner else "default"
            case "signal":
                taken = f"!{step.params['signal']}"
                return (given, taken) if step.params["keep_input"] else taken
            case _:
                return given


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    database=None,
)
@given(scopes(2), st.lists(st.tuples(st.integers(0, len(ACTIONS) - 1), st.integers(0, 31)), min_size=10, max_size=30))
def test_any_flow_in_any_world(shapes: list[Shape], actions: list[tuple[int, int]]) -> None:
    steps = Names().steps(shapes)
    chaos = Chaos(steps)
    for action, pick in actions:
        chaos.do(action, pick)
    chaos.to_the_end()

    world = chaos.world
    if world.status == "completed":
        assert world.result_value == Oracle(world).scope(steps, "input")
    for again in chaos.applied:
        world.commit(again)
    chaos.signal(0)
