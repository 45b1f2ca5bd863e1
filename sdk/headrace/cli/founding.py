"""Opens a namespace before the processes that share it: what it is created with is then one setting, and no race."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random

from headrace_broker.backoff import Backoff
from headrace_broker.checks import check_server
from headrace_broker.connection import Server
from headrace_broker.conversations import converse
from headrace_broker.errors import ServerError, ServerUnreachable
from headrace_broker.namespace import open_namespace


def found_namespace(
    url: str, name: str, partitions: int | None, stopped: threading.Event, tell: Callable[[str], None]
) -> bool:
    """Waits for the server, says once for what, and opens the namespace there; False if stopped before.

    Raises `ConfigurationError` for a server of no use, and for a namespace with another number of partitions.
    """
    server = Server(url)
    backoff = Backoff(Random())
    waiting = False
    while not stopped.is_set():
        try:
            link = server.connect()
            try:
                converse(link, check_server())
                converse(link, open_namespace(name, partitions))
                return True
            finally:
                link.close()
        except (ServerUnreachable, ServerError) as error:  # such as one that loads its data
            if not waiting:
                tell(f"waiting for the server: {error}")
            waiting = True
            stopped.wait(backoff.next())
    return False
