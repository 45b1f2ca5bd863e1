"""From a URL as people write it to a server that can be connected to.

redis://host:6379/0   rediss://…   unix:///path    as they are
embedded://DIR                                     the server in DIR, started if none runs there (see `embedded`)

Who guards an embedded server (`headrace dev` does) starts it again when it dies. While a guard lives, nobody else
starts one in its directory, so that what a guard's processes are connected to is what everybody is connected to.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from .errors import ConfigurationError

if TYPE_CHECKING:
    from .embedded import EmbeddedServer

DEFAULT_URL: Final = "redis://localhost:6379/0"
EMBEDDED: Final = "embedded://"

_SERVER_LOCK: Final = "server.lock"
_GUARD_LOCK: Final = "guard.lock"


@dataclass(frozen=True)
class Located:
    """A server's plain URL, and the embedded server behind it if there is one. Closing stops what was started."""

    url: str
    embedded: EmbeddedServer | None = None

    def close(self) -> None:
        if self.embedded is not None:
            self.embedded.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def locate(url: str) -> Located:
    """The server at `url`; starting an embedded one may take a while.

    Raises `ConfigurationError` for what is no such URL, `EmbeddedServerError`, and `ServerUnreachable` while a guard
    has yet to start the server again.
    """
    from .connection import Server  # a command that prints its help needs no redis-py
    from .embedded import EmbeddedServer

    if not url.startswith(EMBEDDED):
        return Located(Server(url).url)  # which checks it
    server = EmbeddedServer.open(embedded_directory(url))
    return Located(server.url, server)


def embedded_directory(url: str) -> Path:
    """DIR of `embedded://DIR`. Raises `ConfigurationError`."""
    directory = url.removeprefix(EMBEDDED)
    if not directory:
        raise ConfigurationError(
            "embedded:// needs a directory for its data: embedded://DIR, such as embedded://.headrace"
        )
    return Path(directory).expanduser()


def runs_in(directory: Path) -> bool:
    """True if an embedded server runs in `directory`: then its lock is held (see `embedded`). Starts nothing."""
    return _is_held(directory / _SERVER_LOCK, fcntl.LOCK_SH)


def is_guarded(directory: Path) -> bool:
    """True if somebody keeps a server running in `directory`, be it down at the moment."""
    return _is_held(directory / _GUARD_LOCK, fcntl.LOCK_EX)  # guards share the lock


@contextlib.contextmanager
def guarding(directory: Path) -> Generator[None]:
    """Promises to keep a server running in `directory`, an existing one. The kernel takes the promise back at death."""
    descriptor = os.open(directory / _GUARD_LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # never long: others only look whether it is taken
        yield
    finally:
        os.close(descriptor)


def _is_held(path: Path, mode: int) -> bool:
    """True if a lock of that mode cannot be had."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
