"""Signals of the keeper's process as something to read: no code runs inside a handler."""

from __future__ import annotations

import contextlib
import signal
import socket
from types import FrameType
from typing import Final, Self

_WATCHED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class Signals:
    """Collects SIGTERM, SIGINT and SIGCHLD while it is open; its `fileno` can be read when one has come.

    Other threads may `wake` whoever waits for it. Main thread only.
    """

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        for end in (self._near, self._far):
            end.setblocking(False)
        self._stops = 0

    def __enter__(self) -> Self:
        self._wakeup = signal.set_wakeup_fd(self._far.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._handle) for number in _WATCHED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._near.close()
        self._far.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._stops += 1

    def fileno(self) -> int:
        return self._near.fileno()

    def wake(self) -> None:
        """Ends the wait of whoever selects on this. From any thread."""
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed: nobody waits
            self._far.send(b"\0")

    def stops(self) -> int:
        """How many requests to stop have come in all; clears what made `fileno` readable."""
        with contextlib.suppress(BlockingIOError):
            while self._near.recv(4096):
                pass
        return self._stops
