"""`orchestrator` and `worker`: the processes of a deployment. Until SIGTERM or Ctrl-C, which are exit code 0."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Annotated

import typer

from headrace_broker.backoff import Backoff, Waiting
from headrace_broker.errors import ServerUnreachable

from .options import Namespace, Url, server_url

if TYPE_CHECKING:
    from headrace_broker.locate import Located
    from headrace_broker.settings import Settings

_log = logging.getLogger(__name__)

LogLevel = Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.", show_default=False)]
MetricsHost = Annotated[str | None, typer.Option("--metrics-host", help="Where /metrics listens.", show_default=False)]
MetricsPort = Annotated[
    int | None, typer.Option("--metrics-port", help="Port of /metrics; 0 turns it off.", show_default=False)
]
Lease = Annotated[
    str | None,
    typer.Option("--lease", help="Silence after which a worker counts as lost, such as 10s.", show_default=False),
]


def orchestrator(
    url: Url = None,
    namespace: Namespace = None,
    partitions: Annotated[
        int | None, typer.Option("--partitions", help="Of a new namespace; an existing one keeps its count.")
    ] = None,
    ownership: Annotated[
        str | None,
        typer.Option("--ownership", help="Silence after which another takes over, such as 5s.", show_default=False),
    ] = None,
    lease: Lease = None,
    retention_completed: Annotated[
        str | None,
        typer.Option(
            "--retention-completed",
            help='How long completed and cancelled instances are kept, such as 7d, or "forever".',
            show_default=False,
        ),
    ] = None,
    retention_failed: Annotated[
        str | None, typer.Option("--retention-failed", help="The same for failed ones.", show_default=False)
    ] = None,
    retention_count: Annotated[
        str | None,
        typer.Option("--retention-count", help="Ended instances kept of each flow at most.", show_default=False),
    ] = None,
    metrics_host: MetricsHost = None,
    metrics_port: MetricsPort = None,
    log_level: LogLevel = None,
) -> int:
    """Run an orchestrator. Several may run: each takes the partitions that nobody owns."""
    settings = _settings(
        url=url,
        namespace=namespace,
        partitions=partitions,
        ownership=ownership,
        lease=lease,
        retention_completed=retention_completed,
        retention_failed=retention_failed,
        retention_count=retention_count,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        log_level=log_level,
    )
    from headrace_broker.retention import Rule
    from headrace_orchestrator.options import OrchestratorOptions
    from headrace_orchestrator.process import run

    return _with_server(
        settings,
        lambda located: run(
            OrchestratorOptions(
                url=located,
                namespace=settings.namespace,
                partitions=settings.partitions,
                ownership_ms=settings.ownership,
                lease_ms=settings.lease,
                retention=Rule(settings.retention_completed, settings.retention_failed, settings.retention_count),
                metrics_host=settings.metrics_host,
                metrics_port=settings.metrics_port,
            )
        ),
    )


def worker(
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET...", help="file.py, package.module, or either with :attribute.")
    ],
    url: Url = None,
    namespace: Namespace = None,
    queues: Annotated[
        str | None, typer.Option("--queues", help="Comma-separated; else all queues of the targets' tasks.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Tasks that one child runs at once.", show_default=False)
    ] = None,
    processes: Annotated[int | None, typer.Option("--processes", help="Child processes.", show_default=False)] = None,
    max_tasks_per_child: Annotated[
        int | None,
        typer.Option(
            "--max-tasks-per-child", help="Replace a child after so many tasks; else never.", show_default=False
        ),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            "--max-memory", help="Replace a child that takes so much, such as 512MB; else never.", show_default=False
        ),
    ] = None,
    rq: Annotated[
        int | None,
        typer.Option("--rq", help='Rq workers for tasks with isolation="process"; else one if there are such tasks.'),
    ] = None,
    rq_url: Annotated[
        str | None, typer.Option("--rq-url", help="A server of RQ's own; else the same.", show_default=False)
    ] = None,
    lease: Lease = None,
    grace: Annotated[
        str | None, typer.Option("--grace", help="For running tasks after SIGTERM, such as 20s.", show_default=False)
    ] = None,
    log_level: LogLevel = None,
) -> int:
    """Run a worker for the flows and tasks of the targets."""
    settings = _settings(
        url=url,
        namespace=namespace,
        queues=queues,
        concurrency=concurrency,
        processes=processes,
        max_tasks_per_child=max_tasks_per_child,
        max_memory=max_memory,
        rq=rq,
        rq_url=rq_url,
        lease=lease,
        grace=grace,
        log_level=log_level,
    )
    from headrace_workers.process import WorkerOptions, run

    return _with_server(
        settings,
        lambda located: run(
            WorkerOptions(
                url=located,
                namespace=settings.namespace,
                targets=tuple(targets),
                queues=settings.queues or None,
                concurrency=settings.concurrency,
                processes=settings.processes,
                max_tasks_per_child=settings.max_tasks_per_child,
                max_memory=settings.max_memory,
                rq=settings.rq,
                rq_url=settings.rq_url,
                lease_ms=settings.lease,
                grace_ms=settings.grace,
            )
        ),
    )


def _settings(**given: object) -> Settings:
    from headrace_broker.settings import load_settings

    settings = load_settings(**{**given, "url": server_url(given["url"] if isinstance(given["url"], str) else None)})
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    return settings


def _with_server(settings: Settings, run: Callable[[str], int]) -> int:
    try:
        with located_in_time(settings.url) as located:
            return run(located.url)
    except KeyboardInterrupt:  # before the process took over its signals
        return 0


def located_in_time(url: str) -> Located:
    """As `locate`, but waits for a guard that has yet to start its server again, and says so."""
    from headrace_broker.locate import locate

    backoff = Backoff(Random())
    waiting = Waiting(_log)
    while True:
        try:
            return locate(url)
        except ServerUnreachable as error:
            waiting.say(error)
            time.sleep(backoff.next())


def add_to(app: typer.Typer) -> None:
    app.command()(orchestrator)
    app.command()(worker)
