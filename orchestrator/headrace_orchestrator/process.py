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

from headrace_broker.backoff import Backoff, Waiting
from headrace_broker.checks import check_server
from headrace_broker.connection import Connector, Server, is_packing
from headrace_broker.conversations import converse
from headrace_broker.errors import ConfigurationError, ServerError, ServerUnreachable
from headrace_broker.keys import Keys
from headrace_broker.namespace import open_namespace
from headrace_broker.urls import shown

from .metrics import Metrics
from .options import OrchestratorOptions
from .orchestrator import Orchestrator

log = logging.getLogger(__name__)

_COLLECT_AFTER = 50_000
STOP_SECONDS = 2.5
"""For giving up what is owned, once it is told to stop. What is not given up by then runs out by itself."""
_SOON_SECONDS = 0.005


class _Stop(BaseException):
    """Raised by the signal handler inside a wait, so that stopping waits for nothing."""


class _Late(BaseException):
    """Raised by the signal handler wherever we are: a second signal has come, or stopping takes too long."""


class _Stopper:
    """Makes SIGTERM and SIGINT an end between two steps; inside a wait, `_Stop`. A second one, or the end of
    `STOP_SECONDS`, is `_Late`: a server that is frozen must not keep us, and a commit that is cut off was never sent,
    or is the server's to finish.
    """

    def __init__(self) -> None:
        self.waiting = False
        self.late = False
        self._signals = 0
        self._deadline = 0.0

    @property
    def stopping(self) -> bool:
        return self._signals > 0

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, self._handle)

    def over(self) -> None:
        """From now on signals change nothing."""
        self.late = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.late:
            return
        now = time.monotonic()
        if number != signal.SIGALRM:
            self._signals += 1
            if self._signals == 1:
                self._deadline = now + STOP_SECONDS
        if is_packing(frame):
            signal.setitimer(signal.ITIMER_REAL, _SOON_SECONDS)
        elif self._signals > 1 or now >= self._deadline:
            self.late = True
            raise _Late
        else:
            signal.setitimer(signal.ITIMER_REAL, self._deadline - now)
            if self.waiting:
                self.waiting = False
                raise _Stop


def run(options: OrchestratorOptions, connector: Connector | None = None) -> int:
    """Runs until SIGTERM or SIGINT; the exit code.

    Raises `ConfigurationError` for a server or namespace of no use, or an address for metrics that cannot be had.
    """
    stopper = _Stopper()
    stopper.install()
    server = connector or Server(options.url)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    shutdown: Callable[[], None] | None = None
    try:
        if options.metrics_port:  # before the wait: nobody should have to start a server to learn of a taken port
            shutdown = _serve_metrics(options, registry)
        keys, partitions = _wait_for_server(server, options, stopper)
        orchestrator = Orchestrator(
            server, keys, partitions, options, metrics, monotonic=time.monotonic, random=SystemRandom()
        )
        log.info("Orchestrator of namespace %r at %s, %d partitions.", options.namespace, shown(server.url), partitions)
        # What lives by now lives for good; and records hold no cycles, so looking for some less often loses nothing.
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        try:
            _loop(orchestrator, stopper)
        finally:
            if not stopper.late:
                orchestrator.close()
    except _Stop:
        pass  # the signal came while we waited: stopping is what it asked for
    except _Late:
        log.warning("Stopped at once: what is still owned is free for others in %g s.", options.ownership_ms / 1000)
    finally:
        stopper.over()
        if shutdown is not None:
            shutdown()
    log.info("Orchestrator stopped.")
    return 0


def _serve_metrics(options: OrchestratorOptions, registry: CollectorRegistry) -> Callable[[], None]:
    """Begins to serve metrics; returns what ends it. Raises `ConfigurationError`."""
    host, port = options.metrics_host, options.metrics_port
    try:
        httpd, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigurationError(
            f"Metrics cannot be served on {host}:{port}: {error.strerror or error}. Give this orchestrator an address "
            "of its own by --metrics-port N (and --metrics-host), or turn its metrics off by --metrics-port 0."
        ) from error
    log.info("Metrics on http://%s:%d/metrics.", host, httpd.server_port)

    def shutdown() -> None:
        httpd.shutdown()
        httpd.server_close()
        thread.join(timeout=2)

    return shutdown


def _loop(orchestrator: Orchestrator, stopper: _Stopper) -> None:
    backoff = Backoff(SystemRandom())
    waiting = Waiting(log)
    while not stopper.stopping:
        try:
            orchestrator.step(wait=_interruptible(stopper))
        except (ServerUnreachable, ServerError) as error:  # such as LOADING after a restart
            waiting.say(error)
            _pause(backoff.next(), stopper)
        else:
            backoff.reset()
            waiting.over()


def _interruptible(stopper: _Stopper) -> Callable[[bool], None]:
    def wait(waiting: bool) -> None:
        stopper.waiting = waiting
        if waiting and stopper.stopping:
            raise _Stop

    return wait


def _pause(seconds: float, stopper: _Stopper) -> None:
    """Raises `_Stop` as soon as that is asked for."""
    stopper.waiting = True
    try:
        if stopper.stopping:
            raise _Stop
        time.sleep(seconds)
    finally:
        stopper.waiting = False


def _wait_for_server(server: Connector, options: OrchestratorOptions, stopper: _Stopper) -> tuple[Keys, int]:
    """Connects with backoff, says for what it waits, and checks that the server will do."""
    backoff = Backoff(SystemRandom())
    waiting = Waiting(log)
    while True:
        try:
            link = server.connect()
            try:
                converse(link, check_server())
                namespace = converse(link, open_namespace(options.namespace, options.partitions))
                return namespace.keys, namespace.partitions
            finally:
                link.close()
        except (ServerUnreachable, ServerError) as error:  # such as LOADING after a restart
            waiting.say(error)
            _pause(backoff.next(), stopper)
