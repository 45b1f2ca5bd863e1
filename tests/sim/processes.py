"""The processes of the simulated world: orchestrators and workers that run the shipped code, and die on request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from prometheus_client import CollectorRegistry

from headrace.tasks import AnyTask
from headrace_broker.errors import HeadraceError, ServerUnreachable
from headrace_broker.namespace import Namespace
from headrace_orchestrator.metrics import Metrics
from headrace_orchestrator.options import OrchestratorOptions
from headrace_orchestrator.orchestrator import Orchestrator
from headrace_workers.child import ChildLoop, ChildSettings
from headrace_workers.keeper import Keeper, KeeperSettings
from headrace_workers.pipe import Drain, Frame, Ready, Report, Revoked
from headrace_workers.served import Served, serve

from .network import Faults, SimConnector, SimServer
from .virtual import VirtualClock

LEASE_MS = 2000
OWNERSHIP_MS = 2000


class World:
    """What every simulated process is given."""

    def __init__(self, seed: int, faults: Faults, clock: VirtualClock, server: SimServer, namespace: Namespace) -> None:
        self.random = Random(seed)
        self.faults = faults
        self.clock = clock
        self.server = server
        self.namespace = namespace

    def chance(self) -> Random:
        """A random of its own for each process, so that one's draws do not move another's."""
        return Random(self.random.getrandbits(64))

    def connector(self) -> SimConnector:
        return SimConnector(self.server, self.faults)


class SimOrchestrator:
    """An orchestrator process. `kill` is SIGKILL: no close, no release; what is in its memory is gone."""

    def __init__(self, world: World) -> None:
        self._connector = world.connector()
        options = OrchestratorOptions(
            namespace=world.namespace.keys.ns, lease_ms=LEASE_MS, ownership_ms=OWNERSHIP_MS, window=64
        )
        self.metrics = Metrics(CollectorRegistry())
        self._orchestrator = Orchestrator(
            self._connector,
            world.namespace.keys,
            world.namespace.partitions,
            options,
            self.metrics,
            monotonic=world.clock.monotonic,
            random=world.chance(),
        )
        self._random = world.chance()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                busy = self._orchestrator.step(max_block_ms=0)
            except ServerUnreachable:
                busy = False
            await asyncio.sleep(self._random.uniform(0.0002, 0.001) if busy else self._random.uniform(0.003, 0.015))

    def check(self) -> None:
        """Raises what ended it, if anything but `kill` did."""
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    async def kill(self) -> None:
        self._connector.cut()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


class InlineExecutor:
    """Runs plain functions on the loop: the simulated world has no threads."""

    def submit(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 whatever the task raised is its failure
            future.set_exception(error)
        return future

    def close(self) -> None:
        return


class SimChild:
    """`ChildProcess` as a task of the same loop. Its pipe is a method call, as reliable as a pipe."""

    pid = 1

    def __init__(self, world: World, served: Served, consumer: str) -> None:
        self._connector = world.connector()
        self._status: int | None = None
        self._loop = ChildLoop(
            ChildSettings(consumer, concurrency=8, lease_ms=LEASE_MS, grace_ms=5000, block_ms=200),
            served,
            world.namespace,
            self._connector,
            InlineExecutor(),
            monotonic=world.clock.monotonic,
            random=world.chance(),
        )
        self._clock = world.clock
        self._ready = Ready(list(served.streams), served.names("thread"), [], [])
        self._says: list[Frame] = []
        self._reported = world.clock.monotonic()
        self._task = asyncio.create_task(self._run(world.chance().uniform(0.05, 1.0)))
        self._task.add_done_callback(self._ended)

    async def _run(self, loading: float) -> None:
        await asyncio.sleep(loading)
        self._says.append(self._ready)  # in the pipe before it reads, so the keeper hears it even of a dead one
        await self._loop.run()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._status is None:
            self._status = 1 if task.cancelled() or task.exception() else 0

    def fileno(self) -> int:
        return -1

    def poll(self) -> int | None:
        return self._status

    def receive(self) -> list[Frame]:
        said, self._says = self._says, []
        if self._status is None and self._clock.monotonic() - self._reported >= LEASE_MS / 6000:
            self._reported = self._clock.monotonic()
            said.append(Report(self._loop.snapshot(), 0))
        return said

    def send(self, frame: Frame) -> None:
        match frame:
            case Revoked(entries):
                self._loop.revoke(entries)
            case Drain(grace_ms):
                self._loop.drain(grace_ms)
            case _:
                raise AssertionError(f"a keeper does not send {frame}")

    def kill(self) -> None:
        """SIGKILL: nothing more leaves the process, and everything of it ends."""
        if self._status is None:
            self._status = -9
            self._connector.cut()
            self._task.cancel()

    def last_lines(self) -> list[str]:
        return []

    def close(self) -> None:
        return


class SimWorker:
    """A keeper and its child. `kill` is SIGKILL of the keeper, whose child dies with it."""

    def __init__(self, world: World, tasks: Mapping[str, AnyTask], name: str) -> None:
        self._connector = world.connector()
        self._served = serve(tasks.values())
        self._world = world
        self.children: list[SimChild] = []
        self._keeper = Keeper(
            KeeperSettings(name, lease_ms=LEASE_MS, grace_ms=5000, concurrency=8),
            world.namespace,
            self._connector,
            self,
            monotonic=world.clock.monotonic,
            random=world.chance(),
        )
        self._task = asyncio.create_task(self._run())

    def spawn(self, consumer: str) -> SimChild:
        child = SimChild(self._world, self._served, consumer)
        self.children.append(child)
        return child

    async def _run(self) -> None:
        while not self._keeper.done:
            with contextlib.suppress(ServerUnreachable):
                delay = self._keeper.step()
                await asyncio.sleep(min(delay, 0.05))
                continue
            await asyncio.sleep(0.05)

    def check(self) -> None:
        if self._keeper.failure is not None:
            raise HeadraceError(self._keeper.failure)
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    def kill_child(self) -> None:
        """Whatever it does: it may be loading its targets still."""
        if self.children:
            self.children[-1].kill()

    async def kill(self) -> None:
        self._connector.cut()
        self._task.cancel()
        for child in self.children:
            child.kill()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
