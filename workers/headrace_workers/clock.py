"""The server's clock, which all times in messages are by, as far as a process can know it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from headrace_broker.connection import Command, Reply, raise_error

ASK: Final[Command] = ("TIME",)


class ServerClock:
    """A monotonic clock (seconds) with an offset, corrected each time the server tells its TIME."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self._offset = 0.0

    def correct(self, sent: float, reply: Reply) -> None:
        """`sent` is what `monotonic` said before TIME was sent. Raises `ServerError`."""
        seconds, microseconds = raise_error(reply)
        middle = (sent + self.monotonic()) / 2
        self._offset = int(seconds) + int(microseconds) / 1e6 - middle

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return int((self.monotonic() + self._offset) * 1000)
