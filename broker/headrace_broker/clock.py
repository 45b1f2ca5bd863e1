"""The server's time, by which all times in state and messages are, as far as a process can know it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .connection import Command, Reply, raise_error

ASK: Final[Command] = ("TIME",)


def milliseconds(reply: Reply) -> int:
    """Since the epoch, from the reply of TIME. Raises `ServerError`."""
    seconds, microseconds = raise_error(reply)
    return int(seconds) * 1000 + int(microseconds) // 1000


class ServerClock:
    """A monotonic clock plus an offset, learnt anew each time the server tells its TIME."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """`monotonic` gives seconds."""
        self.monotonic = monotonic
        self._offset: float | None = None
        self._floor = 0

    def learn(self, reply: Reply, sent: float | None = None) -> int:
        """Takes the reply of TIME just received; the server's time in ms when it answered. Raises `ServerError`.

        With `sent`, what `monotonic` said before TIME was sent, the clock is off by half a round trip at most; without
        it by a whole one, but never ahead.
        """
        server = milliseconds(reply)
        received = self.monotonic()
        self._offset = server - (received if sent is None else (sent + received) / 2) * 1000
        return server

    def not_before(self, committed: int) -> None:
        """`now` is never below what was committed, whatever a promoted server's clock says (DESIGN 5)."""
        self._floor = max(self._floor, committed)

    def now(self) -> int:
        """Milliseconds since the epoch. Raises RuntimeError before the first `learn`."""
        if self._offset is None:
            raise RuntimeError("the server's time is not known yet")
        return max(self._floor, int(self.monotonic() * 1000 + self._offset))
