"""The course of the demo while its processes run: starts, kills at 30 and 60 %, checks, the approval."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final
from urllib.parse import unquote, urlsplit

from headrace import HeadraceError
from headrace.cli.supervisor import Event, Supervisor
from headrace.client import Client
from headrace_broker.embedded import EmbeddedServer
from headrace_broker.errors import InstanceFinished

from . import checks, flow, histories, killing
from .histories import Story
from .killing import Kill
from .ledger import Ledger
from .modules import Module
from .place import NAMESPACE, Place
from .processes import WORKER
from .screen import Bar, say, table

_WORKER_AT: Final = 0.3
_ORCHESTRATOR_AT: Final = 0.6
_IN_FLIGHT: Final = 96
"""Instances started ahead of those that are stored, so that there is work of every kind at every moment."""
_LOOK_SECONDS: Final = 0.05
_STALLED_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 8.0
"""How long the report waits for a person."""
_REPORT: Final = "report"


class Course:
    """One run. `refused` grows when a process ends for good. `example` is an instance worth looking at: one that lost a
    delivery, once that is known."""

    def __init__(
        self,
        place: Place,
        server: EmbeddedServer,
        supervisor: Supervisor,
        plain: subprocess.Popen[bytes],
        refused: Sequence[Event],
        wanted: Sequence[Module],
        *,
        at_once: bool,
    ) -> None:
        self._place = place
        self._server = server
        self._supervisor = supervisor
        self._plain = plain
        self._refused = refused
        self._wanted = wanted
        self._at_once = at_once
        self._ledger = Ledger(place.directory)
        self._kills: list[Kill] = []
        self.example = wanted[0].name

    async def run(self, began: float) -> int:
        """The exit code. `began` on the monotonic clock. Raises `HeadraceError`."""
        async with Client(self._server.url, NAMESPACE) as client:
            await self._survey(client)
            took = time.monotonic() - began
            good = await self._account(client, took)
            await self._publish(client)
        say()
        return 0 if good else 1

    async def _survey(self, client: Client) -> None:
        """Starts the instances and kills on the way; returns when all have ended."""
        waiting = iter(self._wanted)
        started = stored = 0
        progressed = looked = time.monotonic()
        with Bar(len(self._wanted), "stored") as bar:
            while stored < len(self._wanted):
                batch = list(islice(waiting, max(0, _IN_FLIGHT - (started - stored))))
                await asyncio.gather(*(client.start(flow.survey, module, id=module.name) for module in batch))
                started += len(batch)
                await self._kill_if_due(client, stored / len(self._wanted))
                await asyncio.sleep(_LOOK_SECONDS)
                before, stored = stored, self._ledger.rows()
                bar.show(stored)
                now = time.monotonic()
                if stored > before:
                    progressed = now
                if now - looked > 1:
                    looked = now
                    await self._look_for_failures(client, now - progressed)
        await asyncio.gather(*(client.handle(module.name, flow.survey).result("30s") for module in self._wanted))

    async def _kill_if_due(self, client: Client, share: float) -> None:
        if not self._kills and share >= _WORKER_AT:
            kill = await killing.kill_worker(client, self._supervisor)
        elif len(self._kills) == 1 and share >= _ORCHESTRATOR_AT:
            kill = await killing.kill_orchestrator(self._supervisor)
        else:
            return
        if kill is not None:
            self._kills.append(kill)
            say(f"{share:.0%} stored: SIGKILL to {kill.words}")

    async def _look_for_failures(self, client: Client, idle: float) -> None:
        for event in self._refused:
            said = self._place.log(event.name).read_text(errors="replace").strip().splitlines()
            raise HeadraceError(f"The {event.name} refused to start: {said[-1] if said else event.cause}")
        failed = await client.list(status="failed", limit=1)
        for snapshot in failed.items:
            await client.handle(snapshot.id).result("5s")  # raises what happened
        if idle > _STALLED_SECONDS:
            raise HeadraceError(
                f"Nothing was stored for {idle:.0f} s. What the processes said is in {self._place.given}: worker.log, "
                "orchestrator.log."
            )

    async def _account(self, client: Client, took: float) -> bool:
        """Says how long recovery took, prints the table, and checks everything."""
        stories = await histories.read_stories(client, [module.name for module in self._wanted])
        self.example = next((story.id for story in stories if story.lost), self.example)
        say()
        for kill, until in zip(self._kills, [*(kill.at for kill in self._kills[1:]), datetime.now(UTC)], strict=True):
            say(_recovery(kill, until, stories))
        stored = self._ledger.stored()
        result = checks.count(self._wanted, stories, stored, self._ledger.writes())
        table(
            {
                "instances": f"{result.instances}",
                "steps": f"{result.steps}",
                "retries": f"{result.retries}",
                "redeliveries": f"{result.redeliveries}",
                "writes": f"{result.writes}",
                "rows": f"{result.rows}",
                "time": f"{took:.1f} s",
            }
        )
        plain = await asyncio.to_thread(self._plain_facts)
        problems = checks.problems(result, self._wanted, stories, dict(stored), plain)
        say(f"{result.rows} stored, {result.lost} lost, {result.twice} twice")
        if problems:
            for problem in problems:
                say(f"  NOT as it should be: {problem}")
            return False
        say("Checked: every row equals that of a plain run in one process; each history holds one completion per step;")
        say(f"the {result.retries} retries are those expected; {result.redeliveries} lost deliveries were made again.")
        return True

    def _plain_facts(self) -> dict[str, str]:
        """By module, when the plain run has ended."""
        try:
            code = self._plain.wait(_STALLED_SECONDS)
        except subprocess.TimeoutExpired:
            raise HeadraceError(
                "The plain run in one process has not ended; there is nothing to compare with."
            ) from None
        if code != 0:
            raise HeadraceError(f"The plain run in one process ended with code {code}; its error is above.")
        lines = self._place.plain.read_text("utf-8").splitlines()
        return dict(zip((module.name for module in self._wanted), lines, strict=True))

    async def _publish(self, client: Client) -> None:
        """The last flow: it waits until somebody approves, then publishes the report."""
        handle = await client.start(flow.report, "Python's standard library", id=_REPORT)
        payload = '{"by": "you"}'
        socket = unquote(urlsplit(self._server.url).path)
        raw = f"{NAMESPACE}:signals '*' instance {_REPORT} name {flow.approval.name} payload '{payload}'"
        say()
        say("One flow is left: it waits for the signal `approval`, then publishes the report. From another terminal:")
        say(f"  {self._place.command('signal', _REPORT, flow.approval.name, '--payload', payload)}")
        say(f"  redis-cli -s {socket} XADD {raw}")
        if not self._at_once:
            say(f"or wait: it comes by itself in {_PATIENCE_SECONDS:.0f} s.")
            try:
                path = await handle.result(_PATIENCE_SECONDS)
                say(f"Approved, by you. Published: {path}")
                return
            except TimeoutError:
                pass
        with contextlib.suppress(InstanceFinished):  # somebody was as quick
            await client.signal(_REPORT, flow.approval, flow.Approval("the demo"))
        say(f"Approved. Published: {await handle.result('30s')}")


def _recovery(kill: Kill, until: datetime, stories: Sequence[Story]) -> str:
    """How long it took, by the histories."""
    if kill.who != WORKER:
        time = histories.next_completion(stories, kill.at)
        return f"Killed the orchestrator: the next step completed {_seconds(time)} later."
    # The name of a worker holds its keeper's process id.
    time = histories.next_completion(stories, kill.at, not_by=f"-{kill.pid}-")
    words = f"Killed the worker: the next step completed {_seconds(time)} later, by a new one"
    if (again := histories.handed_out_again(stories, kill.at, until)) is not None:
        words += f"; the {again[0]} tasks it had in hand were handed out again within {_seconds(again[1])}"
    return f"{words}."


def _seconds(time: timedelta | None) -> str:
    return "never" if time is None else f"{time.total_seconds():.1f} s"
