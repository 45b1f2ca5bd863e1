"""`dev`: server, orchestrator and worker on this machine, for whoever writes flows."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final

import typer

from .exits import FAILED, OK, USAGE
from .options import DEV_DIRECTORY, Namespace, Url
from .output import note

if TYPE_CHECKING:
    from headrace.targets import Registry
    from headrace_broker.locate import Located

    from .supervisor import Event

_GRACE: Final = 8.0
_TASK_GRACE: Final = "5s"
_LEASE: Final = "2s"


def dev(
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET...", help="file.py, package.module, or either with :attribute.")
    ],
    url: Url = None,
    namespace: Namespace = None,
    concurrency: Annotated[int, typer.Option("--concurrency", help="Tasks that the worker runs at once.")] = 32,
    log_level: Annotated[str, typer.Option("--log-level", help="Of the processes.")] = "warning",
    reload: Annotated[
        bool, typer.Option("--reload/--no-reload", help="Start the worker again when a file of the targets changes.")
    ] = True,
) -> int:
    """Run a server, an orchestrator and a worker. The server is an embedded one in ./.headrace unless --url or
    HEADRACE_URL names another. What dies is started again, and the worker when your code changes. Ctrl-C stops all and
    is exit code 0, a second one stops at once.
    """
    from headrace.targets import load_targets
    from headrace_broker.locate import EMBEDDED, locate
    from headrace_broker.settings import load_settings

    from .guard import guarded

    registry = load_targets(targets)  # an error of the author's is better told now than by each restart
    chosen = url or os.environ.get("HEADRACE_URL") or f"{EMBEDDED}{DEV_DIRECTORY}"
    name = namespace or os.environ.get("HEADRACE_NAMESPACE") or "headrace"
    partitions = load_settings().partitions
    with locate(chosen) as located:
        note(f"server        {_server(chosen, located)}")
        with guarded(located.embedded, _tell):
            code = _supervise(_Plan(targets, located.url, name, concurrency, log_level, reload), partitions, registry)
    note("stopped")
    return code


@dataclass(frozen=True)
class _Plan:
    """What is run, and how."""

    targets: Sequence[str]
    url: str
    namespace: str
    concurrency: int
    log_level: str
    reload: bool

    @property
    def orchestrator(self) -> list[str]:
        return self._command("orchestrator", "--ownership", _LEASE, "--metrics-port", "0")

    @property
    def worker(self) -> list[str]:
        return self._command("worker", *self.targets, "--concurrency", str(self.concurrency), "--grace", _TASK_GRACE)

    def _command(self, *arguments: str) -> list[str]:
        where = ("--url", self.url, "--namespace", self.namespace)
        return [
            *(sys.executable, "-m", "headrace.cli", *arguments, *where),
            *("--lease", _LEASE, "--log-level", self.log_level),
        ]


def _supervise(plan: _Plan, partitions: int | None, registry: Registry) -> int:
    from .founding import found_namespace
    from .loading import FRESH
    from .readiness import Readiness, until_ready
    from .reloading import Reloader
    from .supervisor import Supervisor

    wake = threading.Event()
    refused: list[Event] = []

    def tell(event: Event) -> None:
        _tell(event)
        if event.kind != "gave_up":
            return
        if event.name == "worker" and reloader is not None and reloader.watches:
            note(f"{event.name:<13} is tried again when the code changes")
            return
        refused.append(event)
        wake.set()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        if wake.is_set():
            raise KeyboardInterrupt  # the second one
        wake.set()

    supervisor = Supervisor(tell, grace=_GRACE, final_codes=(USAGE,))
    readiness = Readiness(plan.url, plan.namespace, registry, lambda: supervisor.pid("worker"))
    reloader = Reloader(plan.targets, lambda: supervisor.restart("worker"), readiness, note) if plan.reload else None
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if not found_namespace(plan.url, plan.namespace, partitions, wake, note):
            return OK
        supervisor.spawn("orchestrator", plan.orchestrator)
        supervisor.spawn("worker", plan.worker, environment=FRESH if plan.reload else None)
        if until_ready(readiness.missing, wake, note):
            note(_welcome(plan.namespace, sorted(registry.flows)))
        if reloader is not None:
            reloader.run(wake)
        wake.wait()
        note("stopping; Ctrl-C again stops at once")
        supervisor.stop()
    except KeyboardInterrupt:
        pass
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        supervisor.kill()
        readiness.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    return FAILED if refused else OK


def _welcome(namespace: str, flows: Sequence[str]) -> str:
    lines = [f"namespace     {namespace}", f"flows         {', '.join(flows) or 'none'}"]
    if flows:
        lines.append(f"try           headrace start {flows[0]} --input JSON --wait")
    return "\n".join([*lines, "Ctrl-C stops all"])


def _tell(event: Event) -> None:
    if (line := describe(event)) is not None:
        note(line)


def describe(event: Event) -> str | None:
    """An event for people; None for one that says nothing new."""
    match event.kind:
        case "started":
            return f"{event.name:<13} runs, pid {event.pid}"
        case "died":
            return f"{event.name:<13} died: {event.cause}"
        case "restarting":
            return f"{event.name:<13} starts again in {event.delay:.1f} s"
        case "gave_up":
            return f"{event.name:<13} refused to start; its error is above"
        case "stopped":
            return None


def _server(chosen: str, located: Located) -> str:
    from headrace_broker.urls import shown

    if located.embedded is None:
        return shown(located.url)
    how = "started" if located.embedded.started else "joined"
    return f"{chosen} ({how}, pid {located.embedded.pid}; {located.url})"


def add_to(app: typer.Typer) -> None:
    app.command()(dev)
