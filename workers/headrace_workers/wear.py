"""When a child has worked enough: it has begun its share of tasks, or its memory has grown too big."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ByteSize

_WEIGH_SECONDS: Final = 0.5
_STATM: Final = Path("/proc/self/statm")


@dataclass(frozen=True)
class Limits:
    """Of one child; None: no limit. `tasks` that it may begin; `memory`: bytes of its resident set."""

    tasks: int | None = None
    memory: int | None = None


NO_LIMITS: Final = Limits()


class Wear:
    """Counts the tasks of a child and weighs it.

    `soon` is called with the reason when its successor should be started, `out` when it must take no more. Tasks end
    predictably, so the successor is asked for when nine tenths of them have begun. Memory is not looked at before the
    first task: a child that did nothing would be replaced by one that does no better.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        resident: Callable[[], int],
        soon: Callable[[str], None],
        out: Callable[[str], None],
    ) -> None:
        self._limits = limits
        self._resident = resident
        self._soon = soon
        self._out = out
        self._begun = 0

    @property
    def room(self) -> int:
        """How many tasks may still begin."""
        return sys.maxsize if self._limits.tasks is None else max(0, self._limits.tasks - self._begun)

    def begun(self) -> None:
        """One more task has begun."""
        self._begun += 1
        limit = self._limits.tasks
        if limit is not None and self._begun >= limit - limit // 10:
            why = f"it has begun {self._begun} of {limit} tasks"
            (self._out if self._begun >= limit else self._soon)(why)

    def weigh(self) -> None:
        limit = self._limits.memory
        if limit is not None and self._begun and (size := self._resident()) >= limit:
            tasks = f"{self._begun} task{'s' if self._begun > 1 else ''}"
            self._out(f"it takes {shown(size)} of memory after {tasks}, and {shown(limit)} is too much")

    async def watch(self) -> None:
        """Weighs, again and again, until cancelled."""
        while True:
            await asyncio.sleep(_WEIGH_SECONDS)
            self.weigh()


def resident_bytes() -> int:
    """The resident set of this process: on Linux as it is now, elsewhere the highest it was."""
    try:
        return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def shown(size: int) -> str:
    """`size` in bytes for people, as `--max-memory` reads it: "84.2MB"."""
    return ByteSize(size).human_readable(decimal=True)
