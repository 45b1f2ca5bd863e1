"""The directory of the demo: what lies there, and taking it for a run.

    headrace-demo.lock   marks it as the demo's; locked while a demo runs
    appendonlydir/ …     the server's data (see `headrace_broker.embedded`)
    modules.db, report.md, plain.jsonl
    orchestrator.log, worker.log

A run begins afresh: it removes what the run before left, and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace_broker.connection import Server, call
from headrace_broker.embedded import EmbeddedServer
from headrace_broker.errors import ConfigurationError, EmbeddedServerError, ServerError, ServerUnreachable
from headrace_broker.locate import EMBEDDED, runs_in

from . import ledger, reporting

NAMESPACE: Final = "demo"

_MARK: Final = "headrace-demo.lock"
_LEFT: Final = ("appendonlydir", "server.log", "server.log.old", "orchestrator.log", "worker.log", "plain.jsonl")
_STOP_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Place:
    """`given` is the directory as the user wrote it, for what is printed; `directory` is absolute."""

    given: Path
    directory: Path

    @property
    def plain(self) -> Path:
        return self.directory / "plain.jsonl"

    def log(self, process: str) -> Path:
        return self.directory / f"{process}.log"

    def command(self, *words: str) -> str:
        """A `headrace` command on this place's data, to be typed in the directory the demo was called in."""
        url = f"{EMBEDDED}{self.given}"
        return shlex.join([*_program(), *words, "--url", url, "--namespace", NAMESPACE])


@contextlib.contextmanager
def take(given: Path) -> Generator[Place]:
    """The directory, empty but for the mark, and locked until the end.

    Raises `ConfigurationError` if it holds something that is not the demo's, or if a demo runs there.
    """
    directory = given.expanduser().absolute()
    mark = directory / _MARK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not mark.exists() and any(directory.iterdir()):
            raise ConfigurationError(
                f"--dir {given} is not empty, and not from a demo. Name a new or an empty directory."
            )
        descriptor = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"--dir {given} cannot be used: {error}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"A demo runs in {given}. Wait for its end, or give --dir another.") from None
        _stop_server(directory)
        _clean(directory)
        yield Place(given, directory)
    finally:
        os.close(descriptor)


def _program() -> list[str]:
    """How to call the `headrace` that runs here, as short as it works in this directory and shell."""
    called = Path(sys.argv[0])
    if called.name == "headrace":
        found = shutil.which("headrace")
        return ["headrace"] if found and os.path.samefile(found, called) else [_short(called)]
    return [_short(Path(sys.executable)), "-m", "headrace.cli"]


def _short(path: Path) -> str:
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _stop_server(directory: Path) -> None:
    """Ends a server that a killed demo has left behind; its data is about to go."""
    if not runs_in(directory):
        return
    with EmbeddedServer.open(directory) as server:
        if not server.started:
            with contextlib.suppress(ServerError, ServerUnreachable):  # it does not answer, it goes
                link = Server(server.url).connect()
                try:
                    call(link, "SHUTDOWN", "NOSAVE")
                finally:
                    link.close()
    deadline = time.monotonic() + _STOP_SECONDS
    while runs_in(directory):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"The server of an earlier demo in {directory} does not stop: kill {server.pid}")
        time.sleep(0.02)


def _clean(directory: Path) -> None:
    for name in (*_LEFT, reporting.FILE, *(f"{ledger.FILE}{suffix}" for suffix in ("", "-wal", "-shm"))):
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
