"""Keeps the embedded server of a `dev` running: when it dies it is started again, with its data and on its socket.

The server is no child as the supervisor's are: it outlives a `dev` that is killed, and may be one that was joined. Its
lock tells that it is gone, whoever started it. While the guard lives, other commands of the directory wait for it
instead of starting a server of their own.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from random import Random
from typing import Final

from headrace_broker.backoff import Backoff
from headrace_broker.embedded import EmbeddedServer
from headrace_broker.errors import HeadraceError
from headrace_broker.locate import guarding

from .supervisor import FIRST_DELAY, LONGEST_DELAY, STEADY_SECONDS, Event

NAME: Final = "server"
_LOOK_SECONDS: Final = 0.1
_UNKNOWN: Final = "another process had started it, so how is not known here"


@contextlib.contextmanager
def guarded(server: EmbeddedServer | None, on_event: Callable[[Event], None]) -> Generator[None]:
    """Guards a server, if there is one. `on_event` is called in the guard's thread."""
    if server is None:
        yield
        return
    stopping = threading.Event()
    thread = threading.Thread(target=_guard, args=(server, on_event, stopping), name="server-guard", daemon=True)
    with guarding(server.directory):
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()


def _guard(server: EmbeddedServer, on_event: Callable[[Event], None], stopping: threading.Event) -> None:
    backoff = Backoff(Random(), first=FIRST_DELAY, cap=LONGEST_DELAY)
    begun = time.monotonic()
    while not stopping.wait(_LOOK_SECONDS):
        if not server.has_ended():
            continue
        if time.monotonic() - begun > STEADY_SECONDS:
            backoff.reset()
        code = server.exit_code()
        died = Event(NAME, "died", server.pid, code or 0, problem=_UNKNOWN if code is None else "")
        if not _revive(server, died, backoff, on_event, stopping):
            return
        begun = time.monotonic()


def _revive(
    server: EmbeddedServer,
    died: Event,
    backoff: Backoff,
    on_event: Callable[[Event], None],
    stopping: threading.Event,
) -> bool:
    """Tries until the server runs again; False if told to stop meanwhile."""
    while True:
        on_event(died)
        delay = backoff.next()
        on_event(Event(NAME, "restarting", died.pid, delay=delay))
        if stopping.wait(delay):
            return False
        try:
            server.revive()
        except HeadraceError as error:
            died = Event(NAME, "died", died.pid, problem=str(error))
        else:
            on_event(Event(NAME, "started", server.pid))
            return True
