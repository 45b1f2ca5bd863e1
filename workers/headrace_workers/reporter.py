"""The child's side of the pipe: a thread, so that the keeper hears of the child even while its event loop is blocked.

Every sixth of a lease it reports what the child holds. When the keeper is gone, it ends the process at once: what the
child holds is the keeper's to answer for, and a child without one commits nothing more (DESIGN 8).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from .pipe import Begun, Configure, Decoder, Drain, Frame, Held, PipeError, Report, Retire, Revoked, Worn, encode

EXIT_ORPHANED: Final = 70
EXIT_BROKEN: Final = 71
_READ = 256 * 1024

_log = logging.getLogger("headrace.worker")


class Reported(Protocol):
    """The part of a child loop that the keeper deals with."""

    def snapshot(self) -> list[Held]: ...
    def revoke(self, places: list[tuple[int, str]]) -> None: ...
    def retire(self) -> None: ...
    def drain(self, grace_ms: int | None = None) -> None: ...


class Reporter:
    """Reports from its `start` on; of a child from its `attach` on."""

    def __init__(self, own: socket.socket, leave: Callable[[int], object] = os._exit) -> None:
        """`leave` ends the process."""
        self._socket = own
        self._leave = leave
        self._decoder = Decoder()
        self._early: deque[Frame] = deque()
        self._lock = threading.Lock()
        self._child: tuple[asyncio.AbstractEventLoop, Reported] | None = None
        self._asked: float | None = None
        self._ended = False

    def configuration(self) -> Configure:
        """Waits for the first frame. Raises `PipeError` if the keeper says anything else, or nothing."""
        while not self._early:
            data = self._socket.recv(_READ)
            if not data:
                raise PipeError("The keeper is gone before it said what to do.")
            self._early.extend(self._decoder.feed(data))
        first = self._early.popleft()
        if not isinstance(first, Configure):
            raise PipeError(f"The first frame is Configure; got {type(first).__name__}.")
        return first

    def start(self, interval: float) -> None:
        """Begins to report, every `interval` seconds."""
        thread = threading.Thread(target=self._run, args=(interval,), name="headrace-reporter", daemon=True)
        thread.start()

    def attach(self, loop: asyncio.AbstractEventLoop, child: Reported) -> None:
        """From now on reports are of this child, and what the keeper says reaches it in its loop."""
        self._child = (loop, child)

    def begins(self, key: str, entry: str) -> None:
        """Tells the keeper before the entry begins; it was reported as not begun."""
        self.tell(Begun(key, entry))

    def worn(self, reason: str) -> None:
        """Asks the keeper to start this child's successor."""
        self.tell(Worn(reason))

    def tell(self, frame: Frame) -> None:
        """May be called from any thread."""
        with self._lock:
            self._send(frame)

    def _end(self, status: int) -> None:
        self._ended = True
        self._leave(status)

    def _send(self, frame: Frame) -> None:
        try:
            self._socket.sendall(encode(frame))
        except OSError:
            self._end(EXIT_ORPHANED)

    def _run(self, interval: float) -> None:
        try:
            self._work(interval)
        except Exception:  # noqa: BLE001 without a reporter the leases would lapse while the tasks run on
            _log.exception("The reporter of this child broke down.")
            self._end(EXIT_BROKEN)

    def _work(self, interval: float) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        due = time.monotonic()
        while not self._ended:
            while self._early:
                self._handle(self._early.popleft())
            if (left := due - time.monotonic()) <= 0:
                self._report()
                due = time.monotonic() + interval
            elif poll.poll(left * 1000):
                try:
                    data = self._socket.recv(_READ)
                except OSError:
                    data = b""
                if not data:
                    self._end(EXIT_ORPHANED)
                    return
                self._early.extend(self._decoder.feed(data))

    def _handle(self, frame: Frame) -> None:
        if self._child is None:
            if isinstance(frame, Drain):  # still loading: nothing is held
                self._end(0)
            return
        loop, child = self._child
        with contextlib.suppress(RuntimeError):  # the loop is closed: the child is done
            if isinstance(frame, Revoked):
                loop.call_soon_threadsafe(child.revoke, frame.entries)
            elif isinstance(frame, Retire):
                loop.call_soon_threadsafe(child.retire)
            elif isinstance(frame, Drain):
                loop.call_soon_threadsafe(child.drain, frame.grace_ms)

    def _report(self) -> None:
        with self._lock:  # `begins` of what this snapshot calls "not begun" comes after it
            held = self._child[1].snapshot() if self._child is not None else []
            self._send(Report(held, self._blocked_ms()))

    def _blocked_ms(self) -> int:
        """For how long the loop has left the last question unanswered; asks again if it did answer."""
        now = time.monotonic()
        if self._asked is None:
            if self._child is not None:
                self._asked = now
                with contextlib.suppress(RuntimeError):
                    self._child[0].call_soon_threadsafe(self._answer)
            return 0
        return int((now - self._asked) * 1000)

    def _answer(self) -> None:
        self._asked = None
