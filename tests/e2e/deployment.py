"""A small deployment for end-to-end tests: real orchestrator and worker processes, restarted when they die."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.cli.supervisor import Supervisor
from support.processes import children
from support.waiting import wait_until


class Deployment:
    """Processes by the names `orchestrator` and `worker`; leases of 2 s, as in the demo."""

    def __init__(
        self,
        url: str,
        namespace: str,
        directory: Path,
        targets: Sequence[str],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._environment = {
            **os.environ,
            "HEADRACE_URL": url,
            "HEADRACE_NAMESPACE": namespace,
            "HEADRACE_LEASE": "2s",
            "HEADRACE_OWNERSHIP": "2s",
            "HEADRACE_METRICS_PORT": "0",
            **(environment or {}),
        }
        self._directory = directory
        self._targets = list(targets)
        self.supervisor = Supervisor(grace=15)

    def start(self, name: str, *arguments: str) -> None:
        argv = [sys.executable, "-m", "headrace.cli", *arguments]
        self.supervisor.spawn(name, argv, environment=self._environment, log=self._directory / f"{name}.log")

    def __enter__(self) -> Self:
        self.start("orchestrator", "orchestrator")
        self.start("worker", "worker", *self._targets)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.supervisor.stop()
        if error is not None:
            for log in sorted(self._directory.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-4000:]}", file=sys.stderr)

    def children_of_worker(self) -> list[int]:
        """The worker's child processes."""
        keeper = self.supervisor.pid("worker")
        return sorted(children(keeper)) if keeper is not None else []

    def kill(self, what: str) -> None:
        """SIGKILL to `orchestrator`, `worker` (the keeper) or `child` (one of the worker's), once there is one."""

        def pid() -> int | None:
            if what == "child":
                return next(iter(self.children_of_worker()), None)
            return self.supervisor.pid(what)

        os.kill(wait_until(pid, 20, f"no {what} to kill") or 0, signal.SIGKILL)
