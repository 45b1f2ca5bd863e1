"""The rq workers of a bridge: so many should live, each with the pipe that it and its horses speak into."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from headrace_broker.backoff import Backoff

from .words import PIPE, Up, Word, decode

_MODULE: Final = f"{__package__}.worker_main"
_READ: Final = 64 * 1024
_LEAVE_SECONDS: Final = 1.0
"""What an rq worker without a job gets for signing off."""

_log = logging.getLogger("headrace.worker")


class Stable:
    """`heard(worker, word)` for each word of an rq worker or its horses, `died(worker)` after its last."""

    def __init__(
        self,
        count: int,
        name: str,
        environment: Mapping[str, str],
        random: Random,
        *,
        heard: Callable[[str, Word], None],
        died: Callable[[str], None],
    ) -> None:
        self._count = count
        self._name = name
        self._environment = environment
        self._random = random
        self._heard = heard
        self._died = died
        self._born = 0
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._retired = asyncio.Event()
        self._up = asyncio.Event()

    async def up(self) -> None:
        """Returns when an rq worker takes jobs."""
        await self._up.wait()

    async def run(self) -> None:
        """Keeps them alive; returns when all are gone after `retire` or `kill`."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._count):
                group.create_task(self._keep())

    def retire(self) -> None:
        """Each finishes its job and leaves."""
        self._retired.set()
        self._signal(signal.SIGTERM)

    async def close(self) -> None:
        """They leave now; those that do not in time are killed."""
        self.retire()
        processes = [asyncio.create_task(process.wait()) for process in self._processes.values()]
        if processes:
            await asyncio.wait(processes, timeout=_LEAVE_SECONDS)
        self._signal(signal.SIGKILL)

    def kill(self, worker: str) -> None:
        """Kills one, and its horse with it: another takes its place."""
        if (process := self._processes.get(worker)) is not None:
            process.kill()

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self) -> None:
        backoff = Backoff(self._random, first=0.1, cap=5.0)
        while not self._retired.is_set():
            served = await self._serve_one()
            if self._retired.is_set():
                return
            if served:
                backoff.reset()
            else:  # it died before it took a job: of the targets, or of RQ's server
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff.next()):
                        await self._retired.wait()

    async def _serve_one(self) -> bool:
        """One rq worker from birth to death; whether it has taken jobs."""
        self._born += 1
        worker = f"{self._name}.rq{self._born}"
        near, far = os.pipe()
        os.set_blocking(near, False)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", _MODULE, str(os.getpid()), worker),
                env={**os.environ, **self._environment, PIPE: str(far)},
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(far,),
                start_new_session=True,  # Ctrl-C is for the keeper
            )
        except OSError as error:
            _log.error("An rq worker cannot be started: %s", error)
            os.close(near)
            return False
        finally:
            os.close(far)
        self._processes[worker] = process
        lines = _Lines(near)
        served = False

        def listen() -> None:
            nonlocal served
            for word in lines.read():
                if isinstance(word, Up):
                    served = True
                    self._up.set()
                self._heard(worker, word)

        loop = asyncio.get_running_loop()
        loop.add_reader(near, listen)
        try:
            status = await process.wait()
            listen()  # what it said last
        finally:
            loop.remove_reader(near)
            os.close(near)
            del self._processes[worker]
        if not self._retired.is_set():
            _log.warning("The rq worker %s (pid %d) died with status %d.", worker, process.pid, status)
        self._died(worker)
        return served


class _Lines:
    """Words out of a pipe that does not block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""

    def read(self) -> list[Word]:
        """All that has come."""
        while True:
            try:
                data = os.read(self._descriptor, _READ)
            except BlockingIOError:
                break
            if not data:
                break
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        return [word for line in lines if (word := decode(line)) is not None]
