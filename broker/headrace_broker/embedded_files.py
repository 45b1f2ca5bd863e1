"""What lies in the directory of an embedded server, and its socket elsewhere (see `embedded`)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from .errors import EmbeddedServerError

_LOG_BYTES: Final = 1 << 20
_SOCKET_PREFIX: Final = "headrace-"
_SOCKET_NAME: Final = "s.sock"
_SOCKET_BYTES: Final = 103  # sun_path is 108 bytes on Linux and 104 on macOS, the closing NUL included


@dataclass(frozen=True)
class Record:
    """`server.json`: how to find the server of a directory."""

    socket: str
    pid: int | None

    @classmethod
    def read(cls, directory: Path) -> Record | None:
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


def prepare(directory: Path) -> Path:
    try:
        directory = directory.expanduser().resolve()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("open.lock", "server.lock"):
            (directory / name).touch(mode=0o600)
    except (OSError, RuntimeError) as error:
        raise EmbeddedServerError(f"The directory {directory} cannot hold a server's data: {error}") from error
    return directory


def socket_path(before: Path | None) -> Path:
    """A path in a directory that only we can enter, short enough for a socket: that of the server before if it may be.

    `before` can say anything, for it comes from a file.
    """
    if before is not None and _is_ours(before):
        before.unlink(missing_ok=True)
        return before
    for parent in (tempfile.gettempdir(), "/tmp"):
        directory = Path(tempfile.mkdtemp(prefix=_SOCKET_PREFIX, dir=parent))
        socket = directory / _SOCKET_NAME
        if len(os.fsencode(socket)) <= _SOCKET_BYTES:
            return socket
        directory.rmdir()
    raise EmbeddedServerError(f"No temporary directory has a path short enough for a socket ({_SOCKET_BYTES} bytes).")


def _is_ours(socket: Path) -> bool:
    """Whether the path is one that we would make; its directory is made anew if it is gone."""
    home = socket.parent
    if socket.name != _SOCKET_NAME or not home.name.startswith(_SOCKET_PREFIX):
        return False
    if home.parent not in (Path(tempfile.gettempdir()), Path("/tmp")):
        return False
    try:
        with contextlib.suppress(FileExistsError):
            home.mkdir(0o700)
        found = home.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700


def remove_socket(socket: Path) -> None:
    if socket.parent.name.startswith(_SOCKET_PREFIX):  # a record is a file, and files can say anything
        shutil.rmtree(socket.parent, ignore_errors=True)


def lock(path: Path) -> int | None:
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
def locked(path: Path, deadline: float) -> Generator[None, None, None]:
    for _ in until(deadline):
        if (descriptor := lock(path)) is not None:
            try:
                yield
            finally:
                os.close(descriptor)
            return
    raise EmbeddedServerError(f"Another process has been starting a server in {path.parent} for too long.")


def until(deadline: float) -> Iterator[None]:
    """Yields at once, then at intervals that grow from 1 to 50 ms, until the deadline has passed."""
    interval = 0.001
    while True:
        yield
        if time.monotonic() >= deadline:
            return
        time.sleep(interval)
        interval = min(interval * 2, 0.05)


def open_log(log: Path) -> int:
    """Sets an overlong log aside; returns the size of what is left, which the new server's lines follow."""
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return 0
    if size <= _LOG_BYTES:
        return size
    log.replace(log.with_suffix(".log.old"))
    return 0
