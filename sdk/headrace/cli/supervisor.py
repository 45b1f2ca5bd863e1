"""Keeps child processes alive: restarts one that died, with backoff; stops them all; lets none outlive this process.

Each child has a thread that starts it, waits for its end and starts it again. The kernel's promise that a child dies
with its parent holds for the *thread* that started it, so that thread must live as long as the child does.

Children are process groups of their own: a terminal's Ctrl-C reaches only us, and we stop them in order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Literal, Self

from headrace_broker.errors import HeadraceError

from . import tethered

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 10.0
STEADY_SECONDS: Final = 10.0
"""A child that lived this long did well: its next restart waits the first delay again."""

EventKind = Literal["started", "died", "restarting", "gave_up", "stopped"]


@dataclass(frozen=True)
class Event:
    """What happened to a child. `code` is its exit code, negative for a signal; `delay` (s) until its restart.

    `problem` says in words what the code does not.
    """

    name: str
    kind: EventKind
    pid: int
    code: int = 0
    delay: float = 0.0
    problem: str = ""

    @property
    def cause(self) -> str:
        """How it ended, in words: "killed by SIGKILL", "exit code 1"."""
        if self.problem:
            return self.problem
        if self.code >= 0:
            return f"exit code {self.code}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-self.code).name}"
        return f"killed by signal {-self.code}"


@dataclass
class _Child:
    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] | None
    log: Path | None
    thread: threading.Thread | None = None
    process: subprocess.Popen[bytes] | None = None
    started: threading.Event = field(default_factory=threading.Event)
    failure: OSError | None = None
    gave_up: bool = False
    again: bool = False
    """It was asked to start again, and has not been started since."""
    hurry: threading.Event = field(default_factory=threading.Event)
    """Set when a restart that is due later shall not wait."""
    killer: threading.Timer | None = None


class Supervisor:
    """Supervises children until `stop`; as a context manager it stops itself. Used by one thread."""

    def __init__(
        self,
        on_event: Callable[[Event], None] | None = None,
        *,
        grace: float = 20.0,
        final_codes: Collection[int] = (),
        random: Random | None = None,
    ) -> None:
        """`on_event` is called in the children's threads, and must not call back. `grace` (s) passes between SIGTERM
        and SIGKILL. A child that ends with one of `final_codes` is not started again."""
        self._on_event = on_event or _ignore
        self._grace = grace
        self._final_codes = frozenset(final_codes)
        self._random = random or Random()
        self._children: dict[str, _Child] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def spawn(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> int:
        """Starts a child and returns its process id. Its output is appended to `log`, else goes where ours goes.

        Raises `HeadraceError` if a child has that name, or if the program cannot be run.
        """
        if name in self._children or self._stopping.is_set():
            raise HeadraceError(f"A child named {name!r} runs already, or the supervisor was stopped.")
        child = _Child(name, argv, environment, log)
        self._children[name] = child
        self._run(child)
        child.started.wait()
        if child.failure is not None or child.process is None:
            del self._children[name]
            raise HeadraceError(f"{name} could not be started: {child.failure}")
        return child.process.pid

    def pid(self, name: str) -> int | None:
        """The process id of a child; None while it is down, or has been told to start again."""
        child = self._children.get(name)
        process = child.process if child is not None and not child.again else None
        return process.pid if process is not None and process.returncode is None else None

    def restart(self, name: str) -> None:
        """Has a child start again, at once if it is down; returns before. It gets SIGTERM, and SIGKILL after the grace.

        Raises `HeadraceError` if there is no child of that name.
        """
        if (child := self._children.get(name)) is None:
            raise HeadraceError(f"There is no child named {name!r}.")
        with self._lock:
            if child.again or self._stopping.is_set():
                return
            child.again = True
            gave_up = child.gave_up
            if child.process is not None and child.process.returncode is None:
                _send(child.process, signal.SIGTERM)
                child.killer = threading.Timer(self._grace, self._kill_if_left, (child.process,))
                child.killer.daemon = True
                child.killer.start()
        child.hurry.set()
        if gave_up:
            self._run(child)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._children)

    def stop(self, grace: float | None = None) -> None:
        """SIGTERM to all, SIGKILL after `grace` seconds to those that are left; returns when all are gone."""
        deadline = time.monotonic() + (self._grace if grace is None else grace)
        self._start_no_more()
        self._signal(signal.SIGTERM)
        for child in self._children.values():
            if child.thread is not None:
                child.thread.join(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """SIGKILL to all, at once; returns when all are gone."""
        self._start_no_more()
        self._signal(signal.SIGKILL)
        for child in self._children.values():
            if child.thread is not None:
                child.thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_no_more(self) -> None:
        with self._lock:
            self._stopping.set()
        for child in self._children.values():
            child.hurry.set()

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:  # a thread reaps its child under the lock, so no other process can have got the id
            for child in self._children.values():
                told = child.again and number == signal.SIGTERM  # a second one would say: at once
                if child.process is not None and child.process.returncode is None and not told:
                    _send(child.process, number)

    def _kill_if_left(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if process.returncode is None:
                _send(process, signal.SIGKILL)

    def _run(self, child: _Child) -> None:
        child.gave_up = False
        child.thread = threading.Thread(target=self._keep, args=(child,), name=f"supervisor-{child.name}", daemon=True)
        child.thread.start()

    def _keep(self, child: _Child) -> None:
        tries = 0
        while True:
            begun = time.monotonic()
            process = self._start(child)
            if process is None:
                return
            _wait_without_reaping(process)
            with self._lock:
                code = process.wait()
                again = child.again
                child.gave_up = code in self._final_codes and not again and not self._stopping.is_set()
                if child.killer is not None:
                    child.killer.cancel()
                    child.killer = None
            if again or self._stopping.is_set():
                self._on_event(Event(child.name, "stopped", process.pid, code))
                tries = 0
                continue
            self._on_event(Event(child.name, "died", process.pid, code))
            if child.gave_up:
                self._on_event(Event(child.name, "gave_up", process.pid, code))
                return
            tries = 0 if time.monotonic() - begun > STEADY_SECONDS else tries + 1
            step = min(FIRST_DELAY * 2.0 ** max(0, tries - 1), LONGEST_DELAY)
            delay = step * (0.5 + self._random.random() / 2)
            self._on_event(Event(child.name, "restarting", process.pid, code, delay))
            child.hurry.wait(delay)

    def _start(self, child: _Child) -> subprocess.Popen[bytes] | None:
        tether = [sys.executable, "-I", "-S", tethered.__file__, str(os.getpid()), *child.argv]
        with self._lock, contextlib.ExitStack() as opened:
            if self._stopping.is_set():
                return None
            child.again = False
            child.hurry.clear()
            try:
                output = None if child.log is None else opened.enter_context(child.log.open("ab"))
                child.process = subprocess.Popen(
                    tether,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=None if output is None else subprocess.STDOUT,
                    env=None if child.environment is None else {**os.environ, **child.environment},
                    process_group=0,
                )
            except OSError as error:
                child.failure = error
                child.started.set()
                return None
        child.started.set()
        self._on_event(Event(child.name, "started", child.process.pid))
        return child.process


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """SIGKILL goes to the whole group, for what the process has started may hang as well."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)


def _wait_without_reaping(process: subprocess.Popen[bytes]) -> None:
    """Until the process has ended; its id stays taken until `Popen.wait`, so a signal cannot hit a stranger."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def _ignore(event: Event) -> None:
    del event
