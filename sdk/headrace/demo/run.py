"""The demo from its first line to its last: processes up, instances started, kills, checks, approval, next commands."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Final

from .modules import Module, choose, standard_library
from .screen import say

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE: Final = 4.0


def run(given: Path, yes: bool, limit: int | None) -> int:
    """Runs the demo; the exit code. Raises `HeadraceError`, and `KeyboardInterrupt` once every process is gone."""
    began = time.monotonic()
    wanted = choose(standard_library(), limit)
    with _stopping_on_signals() as stack:
        _say_what_will_happen(given, wanted)
        return _run(given, yes, began, wanted, stack)


def _run(given: Path, yes: bool, began: float, wanted: Sequence[Module], stack: ExitStack) -> int:
    # Only now, for the first line should not wait for them.
    from headrace.cli.exits import OK, USAGE
    from headrace.cli.supervisor import Event, Supervisor
    from headrace_broker.embedded import EmbeddedServer
    from headrace_broker.errors import MissingExtra
    from headrace_broker.extras import install_command

    from . import place, processes
    from .course import Course
    from .ledger import Ledger

    if importlib.util.find_spec("rq") is None:
        raise MissingExtra(
            f"The demo runs one of its tasks in processes of RQ. Install it: {install_command('embedded', 'rq')}"
        )
    taken = stack.enter_context(place.take(given))
    Ledger(taken.directory).create()
    server = stack.enter_context(EmbeddedServer.open(taken.directory))
    plain = processes.start_plain(taken, os.getpid(), len(wanted))
    stack.callback(_end, plain)
    refused: list[Event] = []

    def note(event: Event) -> None:
        if event.kind == "gave_up":
            refused.append(event)

    supervisor = Supervisor(note, grace=_GRACE, final_codes=(USAGE,))
    stack.callback(supervisor.kill)
    stack.callback(supervisor.stop)
    processes.start(supervisor, taken, server.url)
    course = Course(taken, server, supervisor, plain, refused, wanted, at_once=yes or not _has_person())
    code = asyncio.run(course.run(began))
    if code == OK:
        say("What it left can be looked at; each command starts the server for itself:")
        for words in (("show", course.example), ("ls", "--flow", "modules", "--limit", "10"), ("show", "report")):
            say(f"  {taken.command(*words)}")
    return code


def _say_what_will_happen(given: Path, wanted: Sequence[Module]) -> None:
    say(f"Headrace demo: a durable flow over each of {len(wanted)} modules of this Python's standard library,")
    say("while processes are killed. It is all real: the files, the server with its data on disk, orchestrator, worker")
    say(f"and RQ in processes of their own, every kill a SIGKILL. The data lies in {given}{os.sep} and stays.")
    say()


def _has_person() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


@contextlib.contextmanager
def _stopping_on_signals() -> Generator[ExitStack]:
    """A stack that is unwound undisturbed: a signal ends the body, and those that come later change nothing."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        signal.raise_signal(signal.SIGINT)  # which asyncio.run takes for itself while it runs

    stack = ExitStack()
    before = {number: signal.signal(number, interrupt) for number in _SIGNALS[1:]}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield stack
    except KeyboardInterrupt:
        say("Stopping everything.")
        raise
    finally:
        for number in _SIGNALS:
            signal.signal(number, _ignore)
        try:
            stack.close()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _ignore(number: int, frame: FrameType | None) -> None:
    del number, frame
