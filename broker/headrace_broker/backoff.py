"""Waiting longer after each failure in a row, and never in step with others; and saying for what one waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from random import Random
from typing import Final

_SAY_SECONDS: Final = 10.0


class Backoff:
    """Seconds to wait: doubled from `first` up to `cap`, each time varied between half and the whole."""

    def __init__(self, random: Random, first: float = 0.05, cap: float = 2.0) -> None:
        self._random = random
        self._first = first
        self._cap = cap
        self.failures = 0

    def next(self) -> float:
        delay = min(self._cap, self._first * float(2 ** min(self.failures, 30)))
        self.failures += 1
        return delay * (0.5 + self._random.random() / 2)

    def reset(self) -> None:
        self.failures = 0


class Waiting:
    """Says for what one waits: when an absence begins, then every 10 s."""

    def __init__(
        self, log: logging.Logger, what: str = "the server", monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._what = what
        self._monotonic = monotonic
        self._due: float | None = None

    def say(self, error: Exception) -> None:
        now = self._monotonic()
        if self._due is None or now >= self._due:
            self._due = now + _SAY_SECONDS
            self._log.warning("Waiting for %s: %s", self._what, error)

    def over(self) -> None:
        """It is back: the next absence is told at once."""
        self._due = None
