"""The orchestrator's process: connects, steps until it is told to stop, and survives the server's absence."""

from __future__ import annotations

import gc
import logging
import signal
import time
from collections.abc import Callable
from random import SystemRandom
from types import FrameType

from prometheus_client import CollectorRegistry, start_http_server

from headrace_broker.checks import check_server
from headrace_broker.connection import Connector, Server
from headrace_broker.conversations import converse
from headrace_broker.errors import ServerUnreachable
from headrace_broker.keys import Keys
from headrace_broker.namespace import open_namespace

from .metrics import Metrics
from .options import OrchestratorOptions
from .orchestrator import Orchestrator

log = logging.getLogger(__name__)

_FIRST_DELAY = 0.05
_COLLECT_AFTER = 50_000
_LONGEST_DELAY = 2.0


class _Stop(BaseException):
    """Raised by the signal handler inside a wait, so that stopping waits for nothing."""


class _Stopper:
    """Makes SIGTERM and SIGINT an end between two steps; inside a wait, `_Stop`. A second one ends at once."""

    def __init__(self) -> None:
        self.stopping = False
        self.waiting = False

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            raise SystemExit(128 + number)
        self.stopping = True
        if self.waiting:
            raise _Stop


def run(options: OrchestratorOptions, connector: Connector | None = None) -> int:
    """Runs until SIGTERM or SIGINT; the exit code. Raises `ConfigurationError` for a server or namespace of no use."""
    stopper = _Stopper()
    stopper.install()
    server = connector or Server(options.url)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    shutdown: Callable[[], None] | None = None
    try:
        keys, partitions = _wait_for_server(server, options, stopper)
        if options.metrics_port:
            httpd, thread = start_http_server(options.metrics_port, options.metrics_host, registry)

            def shutdown_metrics() -> None:
                httpd.shutdown()
                httpd.server_close()
                thread.join(timeout=2)

            shutdown = shutdown_metrics
            log.info("Metrics on http://%s:%d/metrics.", options.metrics_host, httpd.server_port)
        orchestrator = Orchestrator(
            server, keys, partitions, options, metrics, monotonic=time.monotonic, random=SystemRandom()
        )
        log.info("Orchestrator of namespace %r at %s, %d partitions.", options.namespace, server.url, partitions)
        # What lives by now lives for good; and records hold no cycles, so looking for some less often loses nothing.
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        try:
            _loop(orchestrator, stopper)
        finally:
            orchestrator.close()
    except _Stop:
        pass  # the signal came while we waited: stopping is what it asked for
    finally:
        if shutdown is not None:
            shutdown()
    log.info("Orchestrator stopped.")
    return 0


def _loop(orchestrator: Orchestrator, stopper: _Stopper) -> None:
    delay = _FIRST_DELAY
    while not stopper.stopping:
        try:
            orchestrator.step(wait=_interruptible(stopper))
            delay = _FIRST_DELAY
        except ServerUnreachable as error:
            log.warning("Waiting for the server: %s", error)
            delay = _pause(delay, stopper)


def _interruptible(stopper: _Stopper) -> Callable[[bool], None]:
    def wait(waiting: bool) -> None:
        stopper.waiting = waiting
        if waiting and stopper.stopping:
            raise _Stop

    return wait


def _pause(delay: float, stopper: _Stopper) -> float:
    stopper.waiting = True
    try:
        if not stopper.stopping:
            time.sleep(delay * SystemRandom().uniform(0.8, 1.2))
    finally:
        stopper.waiting = False
    return min(delay * 2, _LONGEST_DELAY)


def _wait_for_server(server: Connector, options: OrchestratorOptions, stopper: _Stopper) -> tuple[Keys, int]:
    """Connects with backoff, says for what it waits, and checks that the server will do."""
    delay = _FIRST_DELAY
    while True:
        try:
            link = server.connect()
            try:
                converse(link, check_server())
                namespace = converse(link, open_namespace(options.namespace, options.partitions))
                return namespace.keys, namespace.partitions
            finally:
                link.close()
        except ServerUnreachable as error:
            log.warning("Waiting for the server: %s", error)
            delay = _pause(delay, stopper)
