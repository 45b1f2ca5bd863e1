"""Children as real processes: fresh interpreters, not forks, so that no thread, lock or connection is inherited."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import cache

from .echo import Echo
from .pipe import Configure, Frame, KeeperEnd

CHILD = "headrace_workers.child_main"
BRIDGE = "headrace_workers.rq.bridge_main"
_PR_SET_PDEATHSIG = 1


class SpawnedChild:
    """`ChildProcess` over a subprocess and a socket pair."""

    def __init__(self, process: subprocess.Popen[bytes], end: KeeperEnd, echo: Echo) -> None:
        self._process = process
        self._end = end
        self._echo = echo

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return -1 if self._end.closed else self._end.fileno()

    def poll(self) -> int | None:
        return self._process.poll()

    def receive(self) -> list[Frame]:
        return self._end.receive()

    def send(self, frame: Frame) -> None:
        self._end.send(frame)

    def kill(self) -> None:
        self._process.kill()

    def last_lines(self) -> list[str]:
        return self._echo.last_lines()

    def close(self) -> None:
        self._end.close()


class ProcessSpawner:
    """`configure(consumer)` gives a child's settings, which reach it by the pipe: a URL may hold a password."""

    def __init__(self, configure: Callable[[str], str], module: str = CHILD) -> None:
        self._configure = configure
        self._module = module

    def spawn(self, consumer: str) -> SpawnedChild:
        near, far = socket.socketpair()
        try:
            with far, Echo() as echo:
                process = subprocess.Popen(
                    [sys.executable, "-m", self._module, str(far.fileno()), str(os.getpid())],
                    pass_fds=(far.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stderr=echo.descriptor,
                )
        except OSError:
            near.close()
            raise
        end = KeeperEnd(near)
        end.send(Configure(self._configure(consumer)))
        return SpawnedChild(process, end, echo)


def die_with(parent: int) -> None:
    """Asks the kernel (Linux) to kill this process when its parent dies; ends it if that has happened already.

    Elsewhere the reporter notices when the pipe closes.
    """
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
