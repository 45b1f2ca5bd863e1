"""What the histories of the instances say: folded to what is checked and printed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from headrace.client import Client
from headrace_broker.queries import HistoryEvent

_AT_ONCE: Final = 64


@dataclass(frozen=True)
class Completion:
    """A completed step: when that was committed, and which worker had run it."""

    at: datetime
    worker: str


@dataclass(frozen=True)
class Story:
    """One instance. `completions` counts by (node, frame, branch); `lost` has when each
    delivery that was lost with its worker was handed out again."""

    id: str
    status: str
    completions: Counter[tuple[str, Any, Any]] = field(default_factory=Counter[tuple[str, Any, Any]])
    completed: list[Completion] = field(default_factory=list[Completion])
    lost: list[datetime] = field(default_factory=list[datetime])
    retries: int = 0


async def read_stories(client: Client, ids: Iterable[str]) -> list[Story]:
    """The stories of these instances, whose histories are read some at a time."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(id: str) -> Story:
        async with gate:
            return fold(id, await client.history(id))

    return await asyncio.gather(*(one(id) for id in ids))


def fold(id: str, events: Sequence[HistoryEvent]) -> Story:
    ended = [str(event.fields["status"]) for event in events if event.kind == "ended"]
    completions: Counter[tuple[str, Any, Any]] = Counter()
    completed: list[Completion] = []
    lost: list[datetime] = []
    retries = 0
    for event in events:
        fields = event.fields
        match event.kind:
            case "completed":
                completions[event.node or "", fields["frame"], fields["branch"]] += 1
                completed.append(Completion(event.at, fields["worker"]))
            case "redelivered" if fields["cause"] == "lost":
                lost.append(event.at)
            case "retry_scheduled":
                retries += 1
            case _:
                pass
    return Story(id, ended[0] if len(ended) == 1 else f"{len(ended)} ends", completions, completed, lost, retries)


def next_completion(stories: Iterable[Story], moment: datetime, not_by: str = "") -> timedelta | None:
    """From a kill to the commit of the next completed step; None if there is none.

    `not_by` is in the names of workers that do not count: those whose last results were on their way.
    """
    times = [
        done.at
        for story in stories
        for done in story.completed
        if done.at > moment and not (not_by and not_by in done.worker)
    ]
    return min(times) - moment if times else None


def handed_out_again(stories: Iterable[Story], moment: datetime, until: datetime) -> tuple[int, timedelta] | None:
    """How many deliveries were lost between a kill and `until`, and when the last was handed out again."""
    times = [at for story in stories for at in story.lost if moment < at < until]
    return (len(times), max(times) - moment) if times else None
