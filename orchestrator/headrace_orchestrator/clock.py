"""The server's time, as far as an orchestrator may trust it: a monotonic clock plus an offset learnt from TIME."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class ServerClock:
    """`now` never goes back, whatever the host's or a promoted server's clock does (DESIGN 5)."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """`monotonic` gives seconds."""
        self._monotonic = monotonic
        self._offset: float | None = None
        self._floor = 0

    def learn(self, reply: Sequence[bytes]) -> int:
        """Takes the reply of TIME just received; the server's time in ms when it answered."""
        server = int(reply[0]) * 1000 + int(reply[1]) // 1000
        self._offset = server - self._monotonic() * 1000
        return server

    def not_before(self, committed: int) -> None:
        """`now` is never below the last committed `now`."""
        self._floor = max(self._floor, committed)

    def now(self) -> int:
        """Milliseconds since the epoch. Raises RuntimeError before the first `learn`."""
        if self._offset is None:
            raise RuntimeError("the server's time is not known yet")
        self._floor = max(self._floor, int(self._monotonic() * 1000 + self._offset))
        return self._floor
