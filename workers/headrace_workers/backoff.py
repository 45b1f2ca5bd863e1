"""Waiting longer after each failure in a row, and never in step with others."""

from __future__ import annotations

from random import Random


class Backoff:
    """Seconds to wait: doubled from `first` up to `cap`, each time varied between half and the whole."""

    def __init__(self, random: Random, *, first: float = 0.05, cap: float = 2.0) -> None:
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
