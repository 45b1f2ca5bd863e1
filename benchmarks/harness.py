"""The real Headrace under measurement: its processes by CLI, its client. All that touches the API is here.

One `measure` is one namespace, one orchestrator process, one worker (a keeper and one child):

1. Worker and orchestrator start; a first instance shows that both are ready.
2. **Latency**, on the idle system, from before `client.start` to the return of `handle.result`, one
   instance at a time: of a 1-step flow (the start, the step and the pushed result) and of a 10-step chain.
   Their difference over nine is what a *further* step costs: a dispatch and a result, the two hops that
   DESIGN 10 compares with.
3. The orchestrator is stopped by SIGTERM and all instances of the throughput run are started: they wait in
   `starts`, `queued`.
4. **Throughput**: a new orchestrator is launched. The time is that between the first `dispatched` and the
   last `ended` entry of all histories, by the server's clock: neither the launch of a process nor the
   client's starts nor its reading of results count, just as the bare loop's clock begins with every start
   queued. An entry carries the time at which its batch was decided, so the very last commit
   (milliseconds) is outside; the first read is too. Meanwhile the client awaits one result, that of the
   last start.
5. Every result and history is checked; a run that lost or repeated a step is an error, not a number.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from chain_flow import STEPS, chain, one

from headrace import Client, Flow

T = TypeVar("T")

FLOWS = Path(__file__).with_name("chain_flow.py")
#: Client calls in flight while starting and checking.
IN_FLIGHT = 64
#: Seconds for the first instance: two processes boot, ownership is taken.
READY = 30.0
#: Seconds from SIGTERM to SIGKILL.
GRACE = 10.0


@dataclasses.dataclass(frozen=True)
class Measured:
    """One run of the real thing. Latencies in seconds, one sample an instance."""

    steps_per_second: float
    seconds: float
    steps: int
    one_step: tuple[float, ...]
    chain: tuple[float, ...]


# -- processes --------------------------------------------------------------------------------------------


class Processes:
    """Headrace processes with their logs in one directory; ended by their own handles."""

    def __init__(self, url: str, namespace: str, directory: Path) -> None:
        self._shared = ["--url", url, "--namespace", namespace]
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def orchestrator(self) -> None:
        self._start("orchestrator", "--metrics-port", "0")

    def worker(self) -> None:
        self._start("worker", str(FLOWS), "--concurrency", "128")

    def _start(self, name: str, *arguments: str) -> None:
        program = Path(sys.executable).with_name("headrace")  # that of this environment, whatever PATH says
        command = [str(program) if program.exists() else "headrace", name, *arguments, *self._shared]
        with (self._directory / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self, name: str) -> None:
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        for name in list(self._running):
            self.stop(name)

    def died(self) -> str | None:
        """Which process ended by itself, and with which code."""
        for name, process in self._running.items():
            if process.poll() is not None:
                return f"the {name} process ended with exit code {process.returncode}"
        return None

    def logs(self) -> str:
        files = sorted(self._directory.glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)


@contextmanager
def processes(url: str, namespace: str) -> Generator[Processes]:
    """When the body fails, the ends of the logs go to stderr; none of the processes outlives it."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as directory:
        running = Processes(url, namespace, Path(directory))
        try:
            yield running
        except BaseException:
            print(running.died() or "all processes were running", running.logs(), sep="\n", file=sys.stderr)
            raise
        finally:
            running.stop_all()


# -- measurement ------------------------------------------------------------------------------------------


async def measure(url: str, instances: int, latency_samples: int, timeout: float) -> Measured:
    """One round. Raises TimeoutError after `timeout` seconds, RuntimeError for a wrong outcome."""
    namespace = f"bench-{os.urandom(4).hex()}"
    with processes(url, namespace) as running:
        async with asyncio.timeout(timeout), Client(url=url, namespace=namespace) as client:
            running.worker()
            running.orchestrator()
            await round_trip(client, one, 1, "ready", READY)
            one_step = [await round_trip(client, one, 1, f"one-{n}") for n in range(latency_samples)]
            chains = [await round_trip(client, chain, STEPS, f"alone-{n}") for n in range(latency_samples // 4)]
            await asyncio.to_thread(running.stop, "orchestrator")
            ids = [f"chain-{number:08d}" for number in range(instances)]
            handles = await in_flight(ids, lambda id_: client.start(chain, 0, id=id_))
            running.orchestrator()
            for handle in reversed(handles):  # the last one first: until it ends, the client holds one wait
                if await handle.result(timeout=timeout) != STEPS:
                    raise RuntimeError(f"expected {STEPS} steps in each chain; a result says otherwise")
            spans = await in_flight(ids, lambda id_: span(client, id_))
    seconds = max(end for _, end in spans) - min(start for start, _ in spans)
    return Measured(instances * STEPS / seconds, seconds, instances * STEPS, tuple(one_step), tuple(chains))


async def round_trip(client: Client, flow: Flow[int, int], steps: int, id_: str, timeout: float = 10.0) -> float:
    """Seconds from before the start to the result, as a client sees it."""
    start = time.perf_counter()
    handle = await client.start(flow, 0, id=id_)
    result = await handle.result(timeout=timeout)
    taken = time.perf_counter() - start
    if result != steps:
        raise RuntimeError(f"{id_}: expected {steps}, found {result!r}")
    return taken


async def span(client: Client, id_: str) -> tuple[float, float]:
    """When an instance was first dispatched and ended, epoch seconds by the server's clock."""
    entries = list(await client.history(id_))
    kinds = [entry.kind for entry in entries]
    if kinds.count("completed") != STEPS or "dispatched" not in kinds or kinds[-1] != "ended":
        raise RuntimeError(f"{id_}: expected dispatched, {STEPS} × completed, ended; found {kinds}")
    return seconds_of(entries[kinds.index("dispatched")].at), seconds_of(entries[-1].at)


def seconds_of(at: datetime | float) -> float:
    """The client gives datetimes; broker's own entries have milliseconds."""
    return at.timestamp() if isinstance(at, datetime) else at / 1000


async def in_flight(ids: Sequence[str], call: Callable[[str], Coroutine[Any, Any, T]]) -> list[T]:
    """`call` for each id, at most IN_FLIGHT at once; results in the order of `ids`."""
    results: list[T] = []
    for first in range(0, len(ids), IN_FLIGHT):
        results += await asyncio.gather(*(call(id_) for id_ in ids[first : first + IN_FLIGHT]))
    return results


def percentile(samples: Sequence[float], percent: int) -> float:
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]
