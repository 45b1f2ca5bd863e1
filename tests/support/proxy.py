"""A proxy between a client and a server that cuts the connection when a test says so.

    with CuttingProxy(server_url) as proxy:
        link = Server(proxy.url).connect()
        proxy.cut(Cut(request=b"EXEC", reply=b"+QUEUED\\r\\n*", after=2))

The cut above lets EXEC through, waits until the server has answered, hands over what comes before the array of its
reply, the `*` and two bytes more, and then closes both sides: the commit is done, and its author cannot know.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote, urlsplit

_POLL = 0.05
_CHUNK = 64 * 1024
_COMMAND = re.compile(rb"(?:\A|(?<=\n))\*\d+\r\n")
LOADING = "LOADING Redis is loading the dataset in memory"


@dataclass(frozen=True)
class Cut:
    """Where to cut, once.

    It is armed by the connection that sends the bytes `request` (empty: by the next that sends anything). From then
    on the client still gets the replies up to the bytes `reply` and `after` bytes more. With neither it gets nothing,
    though the server has done what was asked: the cut happens when the server's reply arrives.
    With `lose_request` the request itself does not reach the server.
    """

    request: bytes = b""
    reply: bytes = b""
    after: int = 0
    lose_request: bool = False


class CuttingProxy:
    """Listens on a free loopback port, or on a Unix socket at `path`, and forwards to the server at `upstream`.

    All of it runs in daemon threads. `connections`, `cuts` and `refusals` (of single commands) count what happened.
    """

    def __init__(self, upstream: str, path: Path | None = None) -> None:
        self._upstream = upstream
        self._path = path
        self._lock = threading.Lock()
        self._armed: Cut | None = None
        self._refusing = False
        self._refusal = b""
        self._closed = False
        self._flowing = threading.Event()
        self._flowing.set()
        self._pipes: set[_Pipe] = set()
        self.connections = 0
        self.cuts = 0
        self.refusals = 0
        self._listener = _listen(path)
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        if self._path is not None:
            return f"unix://{self._path}"
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self, cut: Cut) -> None:
        """Arms a cut; it replaces one that has not happened."""
        with self._lock:
            self._armed = cut

    def cut_all(self) -> None:
        """Cuts every connection now."""
        for pipe in list(self._pipes):
            pipe.close()

    def go_down(self) -> None:
        """Cuts every connection, and each new one at once, until `come_up`."""
        self._refusing = True
        self.cut_all()

    def come_up(self) -> None:
        self._refusing = False

    def refuse(self, error: str = LOADING) -> None:
        """Answers every command itself, with that error, until `accept`; connections stay open."""
        self._refusal = f"-{error}\r\n".encode()

    def accept(self) -> None:
        self._refusal = b""

    def stall(self) -> None:
        """Forwards nothing more, in either direction, until `flow`; connections stay open."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        self._closed = True
        self._flowing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept` on Linux
        self._thread.join()
        self._listener.close()
        self.cut_all()
        for pipe in list(self._pipes):
            pipe.join()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.connections += 1
            client.settimeout(None)
            if self._refusing:
                client.close()
                continue
            try:
                server = _connect(self._upstream)
            except OSError:
                client.close()
                continue
            pipe = _Pipe(client, server, self._flowing, self._take, self._refuse, self._ended)
            self._pipes.add(pipe)
            pipe.start()
            if self._refusing:  # since `go_down` cut those it knew
                pipe.close()

    def _take(self, request: bytes) -> Cut | None:
        """The armed cut, if this request is the one it waits for."""
        with self._lock:
            armed = self._armed
            if armed is None or armed.request not in request:
                return None
            self._armed = None
            self.cuts += 1
            return armed

    def _refuse(self, request: bytes) -> bytes:
        """The answer to the commands that begin in this request; empty if the server shall give it."""
        refusal = self._refusal
        if not refusal:
            return b""
        count = len(_COMMAND.findall(request))
        self.refusals += count
        return refusal * count

    def _ended(self, pipe: _Pipe) -> None:
        self._pipes.discard(pipe)


class _Pipe:
    """One connection of a client, with the one to the server that belongs to it."""

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        flowing: threading.Event,
        take: Callable[[bytes], Cut | None],
        refuse: Callable[[bytes], bytes],
        ended: Callable[[_Pipe], None],
    ) -> None:
        self._client = client
        self._server = server
        self._flowing = flowing
        self._take = take
        self._refuse = refuse
        self._ended = ended
        self._lock = threading.Lock()
        self._cut: Cut | None = None
        self._threads = [threading.Thread(target=self._run, args=(way,), daemon=True) for way in ("up", "down")]
        self._running = len(self._threads)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Wakes both threads; the last one closes the sockets."""
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _run(self, way: Literal["up", "down"]) -> None:
        try:
            if way == "up":
                self._requests()
            else:
                self._replies()
        except OSError:
            pass
        finally:
            self.close()
            with self._lock:
                self._running -= 1
                last = self._running == 0
            if last:
                self._client.close()
                self._server.close()
                self._ended(self)

    def _requests(self) -> None:
        seen = b""
        while data := self._client.recv(_CHUNK):
            self._flowing.wait()
            if refused := self._refuse(data):
                self._client.sendall(refused)
                continue
            seen = seen[-256:] + data  # a pattern may lie across two chunks
            if self._cut is None and (cut := self._take(seen)) is not None:
                if cut.lose_request:
                    return
                self._cut = cut  # before the request is sent: its reply must not come first
            self._server.sendall(data)

    def _replies(self) -> None:
        left: int | None = None
        waiting = b""
        while data := self._server.recv(_CHUNK):
            self._flowing.wait()
            cut = self._cut
            if cut is None:
                self._client.sendall(data)
                continue
            if left is None:
                waiting += data
                before, found, _ = waiting.partition(cut.reply) if cut.reply else (b"", b"", b"")
                if cut.reply and not found:
                    self._client.sendall(data)
                    continue
                sent = len(waiting) - len(data)
                left = len(before) + len(found) + cut.after - sent
            self._client.sendall(data[: max(left, 0)])
            left -= len(data)
            if left <= 0:
                return


def _listen(path: Path | None) -> socket.socket:
    if path is None:
        listener = socket.create_server(("127.0.0.1", 0))
    else:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen()
    listener.settimeout(_POLL)  # where a shutdown does not wake `accept`
    return listener


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.connect(unquote(parts.path))
        except OSError:
            server.close()
            raise
        return server
    server = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379))
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server
