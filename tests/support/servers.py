"""The servers that tests run against, each started once a test process and only if a test asks for it.

`fake` is fakeredis behind a socket, `valkey` the embedded Valkey, `redis` Debian's redis-server. They are
shared by all tests of a process, so a test keeps to its own namespace and never flushes.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Self, get_args

import pytest
import redis
from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler

from headrace_broker.embedded import EmbeddedServer

ServerKind = Literal["fake", "valkey", "redis"]

KINDS: tuple[ServerKind, ...] = get_args(ServerKind)
FAKE: frozenset[ServerKind] = frozenset(["fake"])
REAL: frozenset[ServerKind] = frozenset(["valkey", "redis"])


class _LikeAServer(TCPFakeRequestHandler):
    """fakeredis hangs up after it has answered with an error; a server does not. Nor does one hold back its replies."""

    disable_nagle_algorithm = True  # or the second reply to a batch waits 40 ms for the first to be acknowledged

    def setup(self) -> None:
        super().setup()
        client: Any = self.current_client
        read = client.read_response

        def read_response() -> Any:
            try:
                return read()
            except redis.ResponseError as error:
                return error

        client.read_response = read_response


class FakeServer:
    """fakeredis on a free loopback port, served from a daemon thread. It speaks RESP2."""

    def __init__(self) -> None:
        self._server = TcpFakeServer(("127.0.0.1", 0), server_type="redis", server_version=(7, 0))
        self._server.RequestHandlerClass = _LikeAServer
        self._server.daemon_threads = True
        self._server.block_on_close = False  # a handler may sit in a blocking read
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="fakeredis", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._server.server_address[1]}/0"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class Servers:
    """Starts each kind of server at its first use; `close` stops them all."""

    def __init__(self, new_directory: Callable[[str], Path]) -> None:
        self._new_directory = new_directory
        self._urls: dict[ServerKind, str] = {}
        self._running = ExitStack()

    def url(self, kind: ServerKind) -> str:
        if kind not in self._urls:
            server = self._start(kind)
            self._running.push(server)
            self._urls[kind] = server.url
        return self._urls[kind]

    def _start(self, kind: ServerKind) -> FakeServer | EmbeddedServer:
        if kind == "fake":
            return FakeServer()
        directory = self._new_directory(kind)
        return EmbeddedServer.open(directory, binary=redis_binary() if kind == "redis" else None)

    def close(self) -> None:
        self._running.close()


def redis_binary() -> str:
    """The path of redis-server. Without one the test is skipped, but fails in CI, which installs it."""
    if (found := shutil.which("redis-server")) is not None:
        return found
    reason = "redis-server is not on PATH; on Debian: apt-get install redis-server"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


FULL = bool(os.environ.get("CI") or os.environ.get("HEADRACE_TEST_FULL"))
"""CI runs everything; `make test` leaves out what mostly repeats another test and takes seconds."""


def kinds_for(markers: list[pytest.Mark]) -> list[ServerKind]:
    """The kinds that a test's marks leave over: `fake_only`, `real_only`, `servers(*kinds)`."""
    allowed = set(KINDS)
    for mark in markers:
        match mark.name:
            case "fake_only":
                allowed &= FAKE
            case "real_only":
                allowed &= REAL
            case "servers":
                if unknown := set(mark.args) - set(KINDS):
                    raise pytest.UsageError(f"servers(): {sorted(unknown)} are none of {KINDS}")
                allowed &= set(mark.args)
            case _:
                pass
    kinds: list[ServerKind] = [kind for kind in KINDS if kind in allowed]
    return kinds


def one_of(kinds: list[ServerKind]) -> list[ServerKind]:
    """The one server that a quick run takes: the embedded one if it may, as it is always there."""
    return ["valkey"] if "valkey" in kinds else kinds[-1:]
