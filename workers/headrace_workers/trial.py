"""Targets are tried while the server is away: a mistake in them should be told now, not when the server is back.

A keeper runs no user code, so a child does, which loads them, says what they serve, and goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from headrace_broker.errors import TargetError

from .causes import ended, quoted
from .nursery import ChildProcess, Spawner
from .pipe import Failed, PipeError, Ready


class Trial:
    """`begin` it when the server is away, `check` it when its `fileno` can be read or a child has died."""

    def __init__(self, spawner: Spawner) -> None:
        self._spawner = spawner
        self._child: ChildProcess | None = None
        self._begun = False
        self.process_tasks: frozenset[str] = frozenset()
        """The tasks that only work-horses can serve, once known."""

    def begin(self) -> None:
        """Only once. What cannot be spawned is not tried: the children will say why."""
        if not self._begun:
            self._begun = True
            with suppress(OSError):
                self._child = self._spawner.spawn("trial")

    def fileno(self) -> int:
        """-1 if it will say nothing more."""
        return -1 if self._child is None else self._child.fileno()

    def check(self) -> None:
        """Raises `TargetError` if the targets cannot be loaded. A child that was killed has proved nothing."""
        child = self._child
        if child is None:
            return
        status = child.poll()
        with suppress(PipeError):
            for frame in child.receive():
                match frame:
                    case Failed(reason):
                        raise TargetError(reason)
                    case Ready(process_tasks=names):
                        self.process_tasks = frozenset(names)
                    case _:
                        pass
        if status is not None:
            lines = child.last_lines()
            self.close()
            if status > 0:
                raise TargetError(died_loading(status, lines))

    def close(self) -> None:
        """Ends it, whatever it has found."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def died_loading(status: int, lines: Sequence[str]) -> str:
    """What to say of a child that left without a word of why, but for `lines` on stderr."""
    return f"A child ended with {ended(status)} while it loaded the targets.{quoted(lines)}"
