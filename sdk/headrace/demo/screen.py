"""What the demo prints: sentences, a progress bar on a terminal (lines elsewhere), a table."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from headrace.cli.output import console

if TYPE_CHECKING:
    from rich.progress import Progress

_LINES: Final = 5
"""Lines of progress where there is no terminal."""


def say(text: str = "") -> None:
    console().print(text, markup=False, soft_wrap=True)


def table(rows: dict[str, str]) -> None:
    from rich.table import Table

    made = Table(pad_edge=False)
    for title in rows:
        made.add_column(title, justify="right", no_wrap=True)
    made.add_row(*rows.values())
    console().print(made)


class Bar:
    """How many of `total` are done. What is said meanwhile appears above it."""

    def __init__(self, total: int, what: str) -> None:
        self._total = total
        self._what = what
        self._said = 0
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        if console().is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                TextColumn(self._what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console()
            )
            self._progress.add_task(self._what, total=self._total)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, done: int) -> None:
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=done)
        elif done * _LINES // max(1, self._total) > self._said:
            self._said = done * _LINES // max(1, self._total)
            say(f"{self._what}: {done} of {self._total}")
