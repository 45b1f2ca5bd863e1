"""The main of a keeper process: signals in, children out, the keeper's steps in between."""

from __future__ import annotations

import logging
import os
import re
import secrets
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import SystemRandom
from typing import Final

from headrace_broker.backoff import Backoff, Waiting
from headrace_broker.checks import check_server
from headrace_broker.connection import Connector, Server
from headrace_broker.conversations import converse
from headrace_broker.errors import ConfigurationError, MissingExtra, ServerError, ServerUnreachable, TargetError
from headrace_broker.locate import DEFAULT_URL
from headrace_broker.namespace import Namespace, open_namespace

from . import rq
from .keeper import Keeper, KeeperSettings
from .options import ChildOptions
from .revocations import Revocations
from .signals import Signals
from .spawn import BRIDGE, ProcessSpawner
from .trial import Trial

_MAX: Final = {"concurrency": 10_000, "processes": 1024}

_log = logging.getLogger("headrace.worker")


@dataclass(frozen=True)
class WorkerOptions:
    """`targets` as on the command line; `queues` None means all that the targets' tasks name. Times in ms.

    A child that has begun `max_tasks_per_child` tasks, or takes `max_memory` bytes, is replaced; None: never.

    `rq`: how many rq workers run the tasks with `isolation="process"`; None means one if there are such tasks, 0 leaves
    them to others. `rq_url`: RQ's own server, if it has one.
    """

    targets: Sequence[str]
    url: str = DEFAULT_URL
    namespace: str = "headrace"
    queues: Sequence[str] | None = None
    concurrency: int = 32
    processes: int = 1
    max_tasks_per_child: int | None = None
    max_memory: int | None = None
    lease_ms: int = 10_000
    grace_ms: int = 20_000
    rq: int | None = None
    rq_url: str | None = None

    def __post_init__(self) -> None:
        for name, limit in _MAX.items():
            if not 1 <= (value := getattr(self, name)) <= limit:
                raise ConfigurationError(f"{name} of a worker is a number from 1 to {limit}; got {value!r}.")
        if self.rq is not None and not 0 <= self.rq <= _MAX["processes"]:
            raise ConfigurationError(f"rq of a worker is a number from 0 to {_MAX['processes']}; got {self.rq!r}.")
        for name in ("max_tasks_per_child", "max_memory"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigurationError(f"{name} of a worker is a number above 0, or None; got {value!r}.")
        if self.lease_ms < 100 or self.grace_ms < 0:
            raise ConfigurationError(
                "A worker's lease is at least 100 ms and its grace not negative; "
                f"got {self.lease_ms} ms and {self.grace_ms} ms."
            )


def run(options: WorkerOptions, connector: Connector | None = None) -> int:
    """Runs a worker until SIGTERM or SIGINT and its grace; a second one ends it at once. Returns the exit status.

    `connector` replaces what the keeper itself connects by; children use the URL. Main thread only.

    Raises `ConfigurationError` for a server or namespace of no use, `TargetError` for targets that cannot be loaded,
    `MissingExtra` for tasks that need RQ where it is not installed.
    """
    if options.rq and not rq.is_installed():
        raise rq.missing()
    server = connector or Server(options.url)
    needs_rq = options.rq is None and not rq.is_installed()
    with Signals() as signals:
        namespace = _wait_for_server(server, options, signals, needs_rq=needs_rq)
        if namespace is None:
            return 0
        channels = [partition.revoked for partition in namespace.all_partitions]
        with Revocations(server, channels, signals.wake) as revocations:
            keeper = _keeper(options, namespace, server)
            refused = _drive(keeper, signals, revocations, needs_rq=needs_rq)
    if refused is not None:
        raise refused
    if keeper.failure is not None:
        raise TargetError(keeper.failure)
    _log.info("Worker stopped.")
    return 0


def _drive(keeper: Keeper, signals: Signals, revocations: Revocations, *, needs_rq: bool) -> MissingExtra | None:
    """Until the keeper is done; an error if it has to end because a task needs RQ."""
    stops = 0
    refused: MissingExtra | None = None
    while True:
        delay = keeper.step()
        if keeper.done:
            return refused
        if needs_rq and refused is None and keeper.process_work[1]:
            refused = rq.missing(keeper.process_work[1])
            keeper.kill()
            continue
        # A closed end would stay readable; SIGCHLD tells of the child's death.
        talking = [child.process.fileno() for child in keeper.children]
        _wait([signals.fileno(), *(end for end in talking if end >= 0)], delay)
        if (now := signals.stops()) > stops:
            if stops == 0 and now == 1:
                _log.info("Stopping: running tasks may finish; a second signal ends them at once.")
                keeper.drain()
            else:
                keeper.kill()
            stops = now
        keeper.revoked(revocations.take())


def _wait(readable: Sequence[int], seconds: float) -> None:
    with selectors.DefaultSelector() as selector:
        for one in readable:
            selector.register(one, selectors.EVENT_READ)
        selector.select(seconds)


def _keeper(options: WorkerOptions, namespace: Namespace, server: Connector) -> Keeper:
    host = socket.gethostname()
    name = f"{re.sub(r'[^A-Za-z0-9_-]', '-', host)[:40]}-{os.getpid()}-{secrets.token_hex(4)}"

    def configure(consumer: str) -> str:
        return _child_options(options, namespace.partitions, consumer)

    def configure_bridge(consumer: str) -> str:
        from .rq.bridge_main import BridgeOptions  # with RQ, which most keepers do without

        streams, names = keeper.process_work
        return BridgeOptions(
            url=options.url,
            rq_url=options.rq_url or options.url,
            namespace=options.namespace,
            partitions=namespace.partitions,
            targets=list(options.targets),
            streams=sorted(streams),
            tasks=sorted(names),
            keeper=name,
            consumer=consumer,
            workers=options.rq or 1,
            lease_ms=options.lease_ms,
            grace_ms=options.grace_ms,
            log_level=_log.getEffectiveLevel(),
        ).to_json()

    settings = KeeperSettings(
        name=name,
        host=host,
        pid=os.getpid(),
        processes=options.processes,
        concurrency=options.concurrency,
        lease_ms=options.lease_ms,
        grace_ms=options.grace_ms,
    )
    keeper = Keeper(
        settings,
        namespace,
        server,
        ProcessSpawner(configure),
        monotonic=time.monotonic,
        random=SystemRandom(),
        bridge=ProcessSpawner(configure_bridge, BRIDGE) if options.rq != 0 and rq.is_installed() else None,
    )
    return keeper


def _child_options(options: WorkerOptions, partitions: int | None, consumer: str) -> str:
    return ChildOptions(
        url=options.url,
        namespace=options.namespace,
        partitions=partitions,
        targets=list(options.targets),
        queues=None if options.queues is None else list(options.queues),
        consumer=consumer,
        concurrency=options.concurrency,
        max_tasks=options.max_tasks_per_child,
        max_memory=options.max_memory,
        lease_ms=options.lease_ms,
        grace_ms=options.grace_ms,
        log_level=_log.getEffectiveLevel(),
    ).to_json()


def _wait_for_server(
    server: Connector, options: WorkerOptions, signals: Signals, *, needs_rq: bool
) -> Namespace | None:
    """The namespace, when the server is there, answers and will do; None if told to stop meanwhile. Says why it waits.

    The targets are tried meanwhile: raises `TargetError` and `MissingExtra`, as `run` does.
    """
    spawner = ProcessSpawner(lambda consumer: _child_options(options, None, consumer))
    with Trial(spawner) as trial:
        return _wait_and_try(server, options, signals, trial, needs_rq)


def _wait_and_try(
    server: Connector, options: WorkerOptions, signals: Signals, trial: Trial, needs_rq: bool
) -> Namespace | None:
    backoff = Backoff(SystemRandom())
    waiting = Waiting(_log)
    while not signals.stops():
        try:
            link = server.connect()
            try:
                converse(link, check_server())
                return converse(link, open_namespace(options.namespace))
            finally:
                link.close()
        except (ServerUnreachable, ServerError) as error:  # one that loads its data, or is read-only, recovers too
            waiting.say(error)
            trial.begin()
            _wait([end for end in (signals.fileno(), trial.fileno()) if end >= 0], backoff.next())
            trial.check()
            if needs_rq and trial.process_tasks:
                raise rq.missing(trial.process_tasks) from None
    return None
