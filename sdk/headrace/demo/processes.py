"""The processes of the demo: how they are started, and which are whose children."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from headrace.cli import tethered
from headrace.cli.supervisor import Supervisor

from . import flow
from .place import NAMESPACE, Place

LEASE: Final = "2s"
ORCHESTRATOR: Final = "orchestrator"
WORKER: Final = "worker"
_CHILD: Final = "headrace_workers.child_main"
_ENVIRONMENT: Final[dict[str, str]] = dict.fromkeys(
    ("HEADRACE_QUEUES", "HEADRACE_PARTITIONS", "HEADRACE_PROCESSES", "HEADRACE_RQ_URL"), ""
)
"""What the user may have set for deployments of their own; empty is as if not set."""


class Process(NamedTuple):
    pid: int
    parent: int
    command: str


def start(supervisor: Supervisor, place: Place, url: str) -> None:
    """Orchestrator and worker, as `headrace orchestrator` and `headrace worker` start them."""
    headrace = [sys.executable, "-m", "headrace.cli"]
    common = ["--url", url, "--namespace", NAMESPACE, "--lease", LEASE, "--log-level", "info"]
    supervisor.spawn(
        ORCHESTRATOR,
        [*headrace, "orchestrator", *common, "--ownership", LEASE, "--metrics-port", "0"],
        environment=_ENVIRONMENT,
        log=place.log(ORCHESTRATOR),
    )
    supervisor.spawn(
        WORKER,
        [*headrace, "worker", flow.__name__, *common, "--concurrency", "32", "--rq", "3", "--grace", "2s"],
        environment={**_ENVIRONMENT, flow.DIRECTORY_VARIABLE: str(place.directory)},
        log=place.log(WORKER),
    )


def start_plain(place: Place, parent: int, modules: int) -> subprocess.Popen[bytes]:
    """The plain run, which dies with `parent`."""
    plain = [sys.executable, "-m", "headrace.demo.plain", str(place.plain), str(modules)]
    tether = [sys.executable, "-I", "-S", tethered.__file__, str(parent)]
    return subprocess.Popen([*tether, *plain], stdin=subprocess.DEVNULL, process_group=0)


def worker_children(keeper: int) -> list[Process]:
    """The child processes of a keeper that run tasks in threads."""
    return [process for process in running() if process.parent == keeper and _CHILD in process.command]


def running() -> list[Process]:
    """All processes that can be seen."""
    root = Path("/proc")
    if not (root / "self" / "stat").exists():
        return _from_ps()
    found: list[Process] = []
    for entry in root.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(errors="replace")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        state, parent, *_ = stat.rpartition(")")[2].split()  # the name before it may hold anything
        if state != "Z":
            found.append(Process(int(entry.name), int(parent), command.strip()))
    return found


def _from_ps() -> list[Process]:
    listing = subprocess.run(["ps", "-axo", "pid=,ppid=,command="], capture_output=True, text=True, check=True)
    rows = (line.split(None, 2) for line in listing.stdout.splitlines())
    return [Process(int(row[0]), int(row[1]), row[2] if len(row) > 2 else "") for row in rows]
