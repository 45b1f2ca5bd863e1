"""A bench for the orchestrator: a namespace on a real server, a clock and connections under the test's control.

Nothing runs by itself. A test steps orchestrators and workers, so every interleaving it describes is the one it gets.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, TypeVar, cast

from prometheus_client import CollectorRegistry

from headrace_broker import codec, queries, registry, requests, workers
from headrace_broker.commit import Meta
from headrace_broker.connection import (
    Argument,
    AsyncLink,
    Command,
    Connector,
    Link,
    Reply,
    Server,
    Subscription,
    call,
    exchange,
    raise_error,
)
from headrace_broker.conversations import Conversation, converse
from headrace_broker.definitions import Definition
from headrace_broker.deletion import DeleteRequest
from headrace_broker.errors import ServerUnreachable
from headrace_broker.keys import Keys, PartitionKeys, classify
from headrace_broker.namespace import Namespace, open_namespace
from headrace_broker.queries import HistoryEvent
from headrace_broker.retention import Retention
from headrace_broker.snapshots import Snapshot
from headrace_broker.workers import WorkerRecord
from headrace_orchestrator.metrics import Metrics
from headrace_orchestrator.options import OrchestratorOptions
from headrace_orchestrator.orchestrator import Orchestrator
from headrace_orchestrator.sweeping.sweeper import LOOK_SECONDS
from support.scripts import preload

from .hand import Hand

T = TypeVar("T")

LEASE_MS: Final = 10_000
DEADLINE_SECONDS: Final = 10.0
IDLE_TURNS: Final = 3


class Clock:
    """A monotonic clock that a test can push forward, and stop."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._stopped_at: float | None = None

    def __call__(self) -> float:
        return (time.monotonic() if self._stopped_at is None else self._stopped_at) + self._ahead

    def stop(self) -> None:
        """From now on only the test moves it."""
        self._stopped_at = time.monotonic()

    def advance(self, seconds: float) -> None:
        self._ahead += seconds


class Tap:
    """A connector whose links show what passes, and can be interfered with.

    `sent` are the commands of all its links. `ahead_ms` is added to what the server says the time is. `before` is
    called with the commands of each write, before it; `after` with a command and its reply, and gives the reply.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self.sent: list[Command] = []
        self.ahead_ms = 0
        self.before: Callable[[Sequence[Command]], None] | None = None
        self.after: Callable[[Command, Reply], Reply] | None = None
        self.connections = 0

    @property
    def url(self) -> str:
        return self._connector.url

    def connect(self, *, timeout: float = 5.0) -> Link:
        self.connections += 1
        return _TappedLink(self, self._connector.connect(timeout=timeout))

    async def connect_async(self, *, timeout: float = 5.0) -> AsyncLink:
        return await self._connector.connect_async(timeout=timeout)

    async def subscription(self) -> Subscription:
        return await self._connector.subscription()

    def names(self) -> list[str]:
        return [str(command[0]) for command in self.sent]


class _TappedLink:
    def __init__(self, tap: Tap, link: Link) -> None:
        self._tap = tap
        self._link = link
        self._waiting: deque[Command] = deque()

    def send(self, commands: Sequence[Command]) -> None:
        self._tap.sent += commands
        self._waiting += commands
        if self._tap.before is not None:
            self._tap.before(commands)
        self._link.send(commands)

    def receive(self, count: int) -> list[Reply]:
        replies = self._link.receive(count)
        return [self._shown(self._waiting.popleft(), reply) for reply in replies]

    def _shown(self, command: Command, reply: Reply) -> Reply:
        if command[0] == "TIME" and self._tap.ahead_ms:
            ms = int(reply[0]) * 1000 + int(reply[1]) // 1000 + self._tap.ahead_ms
            reply = [str(ms // 1000).encode(), str(ms % 1000 * 1000).encode()]
        return reply if self._tap.after is None else self._tap.after(command, reply)

    def wait(self, seconds: float) -> bool:
        return self._link.wait(seconds)

    def close(self) -> None:
        self._link.close()


class Counting(Orchestrator):
    """The shipped one; its metrics can be read by `counted`."""

    registry: CollectorRegistry


class Bench:
    """One namespace, and everything a test needs to work on it. `partitions` is 1 unless the test says otherwise."""

    def __init__(self, url: str, namespace: str, partitions: int = 1) -> None:
        preload(url)
        self.server = Server(url)
        self.link = self.server.connect()
        self.clock = Clock()
        self.namespace: Namespace = converse(self.link, open_namespace(namespace, partitions))
        self.tap = Tap(self.server)
        self._orchestrators: list[Orchestrator] = []
        self._hands: list[Hand] = []

    # -- what runs --------------------------------------------------------------------------------

    @property
    def keys(self) -> Keys:
        return self.namespace.keys

    @property
    def part(self) -> PartitionKeys:
        """The keys of partition 0."""
        return self.namespace.all_partitions[0]

    def orchestrator(
        self,
        seed: int = 0,
        connector: Connector | None = None,
        clock: Callable[[], float] | None = None,
        **options: Any,
    ) -> Counting:
        """Another one each time."""
        options = {"ownership_ms": 60_000, "lease_ms": LEASE_MS, **options}
        registry = CollectorRegistry()
        made = Counting(
            connector or self.tap,
            self.keys,
            self.namespace.partitions,
            OrchestratorOptions(url=self.server.url, namespace=self.keys.ns, **options),
            Metrics(registry),
            monotonic=clock or self.clock,
            random=Random(seed),
        )
        made.registry = registry
        self._orchestrators.append(made)
        return made

    def hand(self, name: str = "hand", streams: tuple[str, ...] = ("default",)) -> Hand:
        made = Hand(self.server, self.namespace, name, streams)
        self._hands.append(made)
        return made

    def announce(self, *streams: str) -> None:
        """A live worker, for the rest of the test, that serves these streams."""
        record = WorkerRecord("keeper", "host", 1, 1, 8, 0, streams, ())
        self.ask(*workers.announce(self.keys, record, self.now_ms(), 60_000))

    def close(self) -> None:
        for orchestrator in self._orchestrators:
            orchestrator.disconnect()
        for hand in self._hands:
            hand.close()
        self.link.close()

    def pass_time(self, ms: int) -> None:
        """For orchestrators, whose clocks and whose server's TIME go on. Ids of entries and TTLs stay real.

        A timer fires when its millisecond is over, so a little more passes than was asked for.
        """
        self.tap.ahead_ms += ms + 2
        self.clock.advance(ms / 1000)

    # -- what clients do --------------------------------------------------------------------------

    def call(self, *command: Argument) -> Any:
        return call(self.link, *command)

    def ask(self, *commands: Command) -> list[Any]:
        return [raise_error(reply) for reply in exchange(self.link, commands)]

    def hold(self, conversation: Conversation[T]) -> T:
        return converse(self.link, conversation)

    def register(self, definition: Definition, retention: Retention | None = None) -> Definition:
        self.hold(registry.store_flow(self.keys, definition, retention=retention))
        return definition

    def start(self, id: str, definition: Definition, value: Any = None) -> str:
        """The incarnation."""
        payload = requests.Payload(codec.encode(value))
        request = requests.StartRequest(id, definition.flow, definition.digest, payload)
        return self.hold(request.hold(self.namespace)).incarnation

    def signal(self, id: str, name: str, value: Any = None) -> None:
        self.hold(requests.SignalRequest(id, name, requests.Payload(codec.encode(value))).hold(self.namespace))

    def raw_signal(self, id: str, name: str, payload: str | bytes) -> None:
        self.call("XADD", self.keys.signals, "*", "instance", id, "name", name, "payload", payload)

    def delete(self, id: str, incarnation: str | None = None) -> str:
        return self.hold(DeleteRequest(id, incarnation).hold(self.namespace))

    def cancel(self, id: str, reason: str = "") -> None:
        self.hold(requests.CancelRequest(id, reason).hold(self.namespace))

    def unblock(self, id: str, *, skip: bool = False, actor: str = "") -> None:
        self.hold(requests.UnblockRequest(id, skip, actor).hold(self.namespace))

    def sweep(self, orchestrator: Orchestrator, ms: int = 0) -> None:
        """Lets that much time pass, and the sweeper look and do what it finds."""
        self.pass_time(ms)
        self.clock.advance(LOOK_SECONDS)
        steps(orchestrator)

    # -- what happened ----------------------------------------------------------------------------

    def now_ms(self) -> int:
        seconds, micros = self.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def snapshot(self, id: str) -> Snapshot:
        return self.hold(queries.read_snapshot(self.namespace, id))

    def status(self, id: str) -> str:
        return self.snapshot(id).status

    def history(self, id: str) -> list[HistoryEvent]:
        return self.hold(queries.read_history(self.namespace, id))

    def meta(self, number: int = 0) -> Meta:
        return Meta.parse(self.call("HGETALL", self.keys.partition(number).meta))

    def slot(self, id: str, slot: str) -> bytes:
        keys = self.namespace.of(id)
        incarnation = self.call("HGET", keys.header(id), "inc").decode()
        return cast(bytes, self.call("HGET", keys.outputs(incarnation), slot))

    def output(self, id: str) -> bytes:
        """The instance's result, as it lies in its slot; aliases are followed."""
        slot = self.snapshot(id).result_slot
        assert slot is not None, f"{id} has no result"
        return self.slot(id, slot)

    def quarantine(self, number: int = 0) -> list[dict[str, str]]:
        rows = self.call("XRANGE", self.keys.partition(number).quarantine, "-", "+")
        found: list[dict[str, str]] = []
        for _, fields in rows:
            texts = [field.decode(errors="replace") for field in fields]
            found.append(dict(zip(texts[::2], texts[1::2], strict=True)))
        return found

    def values(self, incarnation: str, number: int = 0) -> list[str]:
        """The keys of large values of an incarnation."""
        return self.scan(self.keys.partition(number).values(incarnation).replace("[", "\\[") + "*")

    def kinds_left(self) -> set[str]:
        """The kinds (`KeyKind.name`) of all keys of the namespace."""
        names = [*self.scan(f"{self.keys.ns}:*"), *self.scan("{" + self.keys.ns + ":*")]
        kinds = [classify(name) for name in names]
        assert all(kinds), names
        return {kind.name for kind in kinds if kind is not None}

    def scan(self, pattern: str) -> list[str]:
        cursor, found = b"0", list[str]()
        while True:
            cursor, page = self.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            found += [key.decode() for key in page]
            if int(cursor) == 0:
                return sorted(found)


def steps(orchestrator: Orchestrator) -> int:
    """Steps until there is nothing more to do; how many turns did something.

    A turn that fires timers looks for the next one in the turn after it, so one idle turn says nothing yet.
    """
    done = idle = 0
    while idle < IDLE_TURNS:
        if orchestrator.step(0):
            done, idle = done + 1, 0
        else:
            idle += 1
        assert done < 1000, "still busy after 1000 turns"
    return done


def settle(orchestrators: Sequence[Orchestrator] | Orchestrator, hands: Sequence[Hand] | Hand, **control: Any) -> None:
    """Lets orchestrators and workers work until none has anything left to do."""
    group = orchestrators if isinstance(orchestrators, Sequence) else [orchestrators]
    crew = hands if isinstance(hands, Sequence) else [hands]
    for _ in range(1000):
        busy = sum(steps(orchestrator) for orchestrator in group) + sum(hand.work(**control) for hand in crew)
        if not busy:
            return
    raise AssertionError("still busy after 1000 rounds")


def step_until(orchestrator: Orchestrator, predicate: Callable[[], T], why: str = "") -> T:
    """Steps without waiting until the predicate holds; a lost server is met by stepping on, as the process does."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (answer := predicate()):
        assert time.monotonic() < deadline, f"in vain: {why or predicate}; last answer {answer!r}"
        try:
            orchestrator.step(0)
        except ServerUnreachable:
            continue
    return answer


def counted(orchestrator: Counting, name: str, **labels: str) -> float:
    """The sum of a counter over all samples that have these labels."""
    total = 0.0
    for metric in orchestrator.registry.collect():
        for sample in metric.samples:
            if sample.name == f"headrace_{name}" and labels.items() <= sample.labels.items():
                total += sample.value
    return total


def kinds(history: Sequence[HistoryEvent], kind: str) -> list[HistoryEvent]:
    return [event for event in history if event.kind == kind]


def completions(history: Sequence[HistoryEvent]) -> list[str]:
    """The nodes of the completed steps, in order; no (node, frame, branch) may be there twice."""
    found = [(event.node, event.fields["frame"], event.fields["branch"]) for event in kinds(history, "completed")]
    assert len(set(found)) == len(found), f"completed twice: {found}"
    return [str(node) for node, _, _ in found]


def check_once(history: Sequence[HistoryEvent], *nodes: str, status: str = "completed") -> None:
    """One start, one end, and one completion of each of these steps: every event was applied exactly once."""
    assert completions(history) == list(nodes)
    assert len(kinds(history, "started")) == 1
    ends = kinds(history, "ended")
    assert [end.fields["status"] for end in ends] == [status]
    assert history[-1] is ends[0]
    dispatched = [(event.fields["step"], event.fields["attempt"]) for event in kinds(history, "dispatched")]
    redelivered = len(kinds(history, "redelivered"))
    assert len(dispatched) - len(set(dispatched)) <= redelivered, f"dispatched twice: {dispatched}"
