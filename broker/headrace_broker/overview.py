"""A namespace at a glance: how many instances there are of each status and flow, what waits in queues, who works.

It reads sizes, never members, so it costs the same however many instances there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .connection import Command
from .conversations import Conversation, ask
from .instances import STATUSES
from .namespace import Namespace
from .registry import flow_names
from .workers import WorkerRecord, live_workers

MAX_NAMES: Final = 100
"""Flows, and queues, that an overview counts: those that come first by name."""
_BATCH: Final = 4096
"""Commands per round trip."""


@dataclass(frozen=True)
class QueueLoad:
    """`backlog`: tasks handed out and not settled, waiting or running. `workers`: keepers that live and serve it.

    `queue` is a task stream's name: tasks with `isolation="process"` have `<queue>:process`.
    """

    queue: str
    backlog: int
    workers: int


@dataclass(frozen=True)
class Overview:
    """Counts of the instances that are stored, and what serves them. `more_flows` were not counted."""

    statuses: Mapping[str, int]
    flows: Mapping[str, int]
    more_flows: int
    queues: tuple[QueueLoad, ...]
    workers: tuple[WorkerRecord, ...]


def read_overview(namespace: Namespace) -> Conversation[Overview]:
    """Sums over all partitions, each of its own moment."""
    keys = namespace.keys
    flows = yield from flow_names(keys)
    workers = yield from live_workers(keys)
    (members,) = yield from ask(("SMEMBERS", keys.queues))
    streams = sorted(name.decode() for name in members)[:MAX_NAMES]
    counted = flows[:MAX_NAMES]
    sizes = yield from _sums(
        [[("ZCARD", partition.by_status(status)) for partition in namespace.all_partitions] for status in STATUSES]
        + [[("ZCARD", partition.by_flow(flow)) for partition in namespace.all_partitions] for flow in counted]
        + [[("XLEN", partition.tasks(stream)) for partition in namespace.all_partitions] for stream in streams]
    )
    return Overview(
        statuses=dict(zip(STATUSES, sizes, strict=False)),
        flows=dict(zip(counted, sizes[len(STATUSES) :], strict=False)),
        more_flows=len(flows) - len(counted),
        queues=tuple(
            QueueLoad(stream, backlog, sum(stream in worker.streams for worker in workers))
            for stream, backlog in zip(streams, sizes[len(STATUSES) + len(counted) :], strict=True)
        ),
        workers=tuple(workers),
    )


def _sums(groups: Sequence[Sequence[Command]]) -> Conversation[list[int]]:
    """The sum of the replies of each group."""
    commands = [command for group in groups for command in group]
    replies: list[int] = []
    for start in range(0, len(commands), _BATCH):
        replies += map(int, (yield from ask(*commands[start : start + _BATCH])))
    answers = iter(replies)
    return [sum(next(answers) for _ in group) for group in groups]
