"""The kills: SIGKILL to processes at work, and the certainty that they were at work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from headrace.cli.supervisor import Supervisor
from headrace.client import Client
from headrace_broker.conversations import Conversation, ask
from headrace_broker.keys import GROUP, stream_of
from headrace_broker.namespace import Namespace

from . import flow, processes
from .processes import ORCHESTRATOR, WORKER

_SETTLE_SECONDS: Final = 0.05
"""A stopped process's last transaction may still be on its way; a whole lease is far longer."""
_LOOKS: Final = 8


@dataclass(frozen=True)
class Kill:
    """`at` is by this machine's clock, which is the embedded server's too. `pid` is the orchestrator's or keeper's."""

    who: str
    at: datetime
    pid: int
    words: str


async def kill_worker(client: Client, supervisor: Supervisor) -> Kill | None:
    """Kills a child that holds tasks, and its keeper. None if this is no moment for it: try again."""
    keeper = supervisor.pid(WORKER)
    children = processes.worker_children(keeper) if keeper is not None else []
    if keeper is None or not children:
        return None
    child = children[0].pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGSTOP)  # what it holds now, it holds when it dies
        try:
            held = await _wait_until_held(client)
        except BaseException:
            os.kill(child, signal.SIGCONT)
            raise
        if held == 0:
            os.kill(child, signal.SIGCONT)
            return None
    at = datetime.now(UTC)
    for victim in (keeper, child):  # the keeper first: it would report the child's death at once
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    return Kill(WORKER, at, keeper, f"a worker's child (pid {child}) and its keeper (pid {keeper})")


async def kill_orchestrator(supervisor: Supervisor) -> Kill | None:
    """Kills the orchestrator, which owns all partitions. None if it does not run at the moment."""
    pid = supervisor.pid(ORCHESTRATOR)
    if pid is None:
        return None
    at = datetime.now(UTC)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return Kill(ORCHESTRATOR, at, pid, f"the orchestrator (pid {pid})")


async def _wait_until_held(client: Client) -> int:
    """How many deliveries the stopped child holds. If none, it sits in a blocking read, and the next comes to it."""
    held = 0
    for _ in range(_LOOKS):
        await asyncio.sleep(_SETTLE_SECONDS)
        held = await client.session.ask(_held, "count what the worker holds")
        if held:
            break
    return held


def _held(namespace: Namespace) -> Conversation[int]:
    """How many deliveries of tasks that run in children are held: read and not settled."""
    calls = [task.call() for task in flow.survey.tasks.values() if task.isolation == "thread"]
    streams = sorted({stream_of(call.queue, call.isolation) for call in calls})
    keys = [partition.tasks(stream) for partition in namespace.all_partitions for stream in streams]
    replies = yield from ask(*(("XPENDING", key, GROUP) for key in keys))
    return sum(int(reply[0]) for reply in replies)
