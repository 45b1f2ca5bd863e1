"""What the simulated world lives through: instances of one flow, kills, lost messages, and then peace. Who has its
result deletes its instance, whatever goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from headrace import Client, Flow, RetryPolicy, Signal, task
from headrace.tasks import AnyTask
from headrace_broker.connection import Link, call
from headrace_broker.conversations import converse
from headrace_broker.keys import classify
from headrace_broker.namespace import open_namespace
from headrace_broker.queries import HistoryEvent

from .network import Faults, SimServer
from .processes import SimOrchestrator, SimWorker, World
from .virtual import VirtualClock, run

INSTANCES = 9
TROUBLE_SECONDS = 10.0
PEACE_SECONDS = 120.0


@dataclass
class Outcome:
    """What a run of the world left behind."""

    results: dict[str, int] = field(default_factory=dict[str, int])
    histories: dict[str, list[HistoryEvent]] = field(default_factory=dict[str, "list[HistoryEvent]"])
    executions: Counter[str] = field(default_factory=Counter[str])
    events: Counter[str] = field(default_factory=Counter[str])
    left: set[str] = field(default_factory=set[str])
    """The kinds of keys that are there when all is deleted (`KeyKind.name`)."""


class Story:
    """The flow and its side effects. `executions` counts how often each step's code ran, per instance."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.executions: Counter[str] = Counter()
        self.approval = Signal("approval", int)
        self.flow = self._flow()

    async def _work(self, step: str, value: int) -> None:
        self.executions[f"{value}/{step}"] += 1
        await asyncio.sleep(self._random.choice([0.0, 0.001, 0.01, 0.3]))

    def _flow(self) -> Flow[int, int]:
        work, chance = self._work, self._random

        @task
        async def first(value: int) -> int:
            await work("first", value)
            return value

        @task(retries=RetryPolicy(max_retries=50, initial_delay="50ms", max_delay="1s"))
        async def flaky(value: int) -> int:
            await work("flaky", value)
            if chance.random() < 0.3:
                raise OSError("as it happens")
            return value * 10

        @task
        async def other(value: int) -> int:
            await work("other", value)
            return value + 1

        @task
        async def merge(a: int, b: int) -> int:
            await work("merge", b - 1)
            return a + b

        @task(timeout="5s")
        async def last(value: int) -> int:
            return value

        return (
            Flow("story", input=int)
            .then(first)
            .fork()
            .branch("a", flaky)
            .branch("b", other)
            .join(merge)
            .delay("700ms")
            .wait_for_signal(self.approval)
            .then(last)
        )

    @property
    def tasks(self) -> Mapping[str, AnyTask]:
        return self.flow.tasks


def live(seed: int) -> Outcome:
    """One life of the world, from a seed. Raises whatever ends a process that nobody killed."""
    clock = VirtualClock()
    outcome: Outcome = run(clock, _live(seed, clock))
    return outcome


async def _live(seed: int, clock: VirtualClock) -> Outcome:
    random = Random(seed)
    faults = Faults(Random(random.getrandbits(64)), lost_requests=0.02, lost_replies=0.04)
    server = SimServer()
    link = server.link()
    namespace = converse(link, open_namespace("sim", 2))
    world = World(seed, faults, clock, server, namespace)
    story = Story(Random(random.getrandbits(64)))
    outcome = Outcome(executions=story.executions)
    orchestrators = [SimOrchestrator(world), SimOrchestrator(world)]
    worker = SimWorker(world, story.tasks, "keeper-0")
    client = Client(connector=world.connector(), namespace="sim", random=world.chance())
    starts = [
        asyncio.create_task(_one(client, story, f"i{number}", number, Random(random.getrandbits(64)), outcome))
        for number in range(1, INSTANCES + 1)
    ]
    end = clock.monotonic() + TROUBLE_SECONDS
    born = 0
    while clock.monotonic() < end:
        await asyncio.sleep(random.expovariate(0.7))
        match random.choice(("orchestrator", "orchestrator", "child", "child", "keeper")):
            case "orchestrator":
                which = random.randrange(2)
                orchestrators[which].check()
                await orchestrators[which].kill()
                orchestrators[which] = SimOrchestrator(world)
                outcome.events["orchestrator killed"] += 1
            case "child":
                worker.kill_child()
                outcome.events["child killed"] += 1
            case _:
                worker.check()
                await worker.kill()
                born += 1
                worker = SimWorker(world, story.tasks, f"keeper-{born}")
                outcome.events["keeper killed"] += 1
    faults.stop()
    async with asyncio.timeout(PEACE_SECONDS):
        await asyncio.gather(*starts)
        while (await client.list()).items or "purge" in _kinds(link):
            await asyncio.sleep(0.1)
    outcome.left = _kinds(link)
    processes: list[SimOrchestrator | SimWorker] = [*orchestrators, worker]
    for process in processes:
        process.check()
    outcome.events += faults.seen
    await client.close()
    for process in processes:
        await process.kill()
    return outcome


async def _one(client: Client, story: Story, id: str, number: int, chance: Random, outcome: Outcome) -> None:
    """One instance's life as its user sees it: start, a signal at some time, the result, the history."""
    await asyncio.sleep(chance.uniform(0, 5))
    handle = await client.start(story.flow, number, id=id)
    await asyncio.sleep(chance.uniform(0, 5))
    await client.signal(id, story.approval, number * 7)
    outcome.results[id] = await handle.result()
    outcome.histories[id] = list(await client.history(id))
    await client.delete(id)


def _kinds(link: Link) -> set[str]:
    kinds = [classify(key.decode()) for key in call(link, "KEYS", "*")]
    assert all(kinds), call(link, "KEYS", "*")
    return {kind.name for kind in kinds if kind is not None}
