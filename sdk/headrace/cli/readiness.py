"""Whether the processes of a `dev` are up: what a start would find, read from the server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from headrace_broker.connection import Link, Server
from headrace_broker.conversations import Conversation, ask, converse
from headrace_broker.errors import ServerError, ServerUnreachable
from headrace_broker.keys import Keys
from headrace_broker.namespace import open_namespace
from headrace_broker.registry import flow_names
from headrace_broker.workers import live_workers

if TYPE_CHECKING:
    from headrace.targets import Registry

DEADLINE_SECONDS: Final = 15.0
"""After which a person is told what is missing. It may still come."""
_LOOK_SECONDS: Final = 0.1


class Readiness:
    """Looks at the server for the flows and tasks of `registry`, and for who owns and works."""

    def __init__(self, url: str, namespace: str, registry: Registry, worker: Callable[[], int | None]) -> None:
        """`worker` gives the process id of the worker; None while it is down."""
        self._server = Server(url)
        self._keys = Keys(namespace)
        self.expect(registry.flows, registry.tasks)
        self._worker = worker
        self._link: Link | None = None

    def expect(self, flows: Iterable[str], tasks: Iterable[str]) -> None:
        """These from now on."""
        self._flows = frozenset(flows)
        self._tasks = frozenset(tasks)

    def missing(self) -> list[str]:
        """What is not there yet, in words; empty if all is."""
        try:
            if self._link is None:
                self._link = self._server.connect()
            return converse(self._link, self._look(self._worker()))
        except (ServerUnreachable, ServerError) as error:
            self.close()
            return [f"the server ({str(error).rstrip('.')})"]

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _look(self, worker: int | None) -> Conversation[list[str]]:
        host = socket.gethostname()  # a server may be shared, and process ids are not
        live = yield from live_workers(self._keys)
        ours = [record for record in live if (record.host, record.pid) == (host, worker)]
        tasks = self._tasks.difference(*(record.tasks for record in ours))
        flows = self._flows.difference((yield from flow_names(self._keys)))
        # A worker opens the namespace; before one is there, nobody can say how many partitions it will have.
        count = (yield from open_namespace(self._keys.ns)).partitions if ours else 1
        owned = yield from ask(*(("EXISTS", self._keys.partition(number).owner) for number in range(count)))
        missing: list[str] = []
        if not all(owned):
            missing.append("the orchestrator")
        if not ours:
            missing.append("the worker")
        elif tasks:
            missing.append(f"the worker's {_listed('task', tasks)}")
        if flows:
            missing.append(_listed("flow", flows))
        return missing


def until_ready(
    missing: Callable[[], Sequence[str]],
    stopped: threading.Event,
    tell: Callable[[str], None],
    deadline: float = DEADLINE_SECONDS,
) -> bool:
    """Returns True when nothing is missing, False when stopped; after `deadline` seconds tells once what is."""
    due: float | None = time.monotonic() + deadline
    while not stopped.is_set():
        if not (lacking := missing()):
            return True
        if due is not None and time.monotonic() >= due:
            due = None
            tell(f"not ready after {deadline:g} s, still waiting for: {', '.join(lacking)}")
        stopped.wait(_LOOK_SECONDS)
    return False


def _listed(what: str, names: Collection[str]) -> str:
    return f"{what}{'s' if len(names) > 1 else ''} {', '.join(sorted(names))}"
