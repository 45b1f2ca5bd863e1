"""A blocking read that ends when it should: at the first entry, or to the millisecond when something else is due.

The server looks at the time-outs of blocked clients ten times a second ✓, so BLOCK alone ends up to 100 ms late, and
every timer with it. Here the wait is ours, and a read that has waited long enough is ended by CLIENT UNBLOCK.
"""

from __future__ import annotations

from typing import Final

from headrace_broker.connection import Command, Link, Reply, exchange, raise_error
from headrace_broker.errors import ServerError

MAX_BLOCK_MS: Final = 1000
"""The longest wait; also how long a server blocks that does not know CLIENT UNBLOCK."""


class BlockingReader:
    """A connection for blocking reads alone."""

    def __init__(self, link: Link) -> None:
        """Raises `ServerUnreachable`."""
        self._link = link
        (reply,) = exchange(link, [("CLIENT", "ID")])
        self._id: int | None = None if isinstance(reply, ServerError) else int(reply)

    def read(self, count: int, streams: list[str], cursors: list[str], wait_ms: int, waker: Link) -> Reply:
        """The reply of XREAD: what came first, or nil after `wait_ms`. `waker` is another connection.

        Raises `ServerUnreachable` and `ServerError`.
        """
        block_ms = wait_ms if self._id is None else 2 * MAX_BLOCK_MS
        command: Command = ("XREAD", "COUNT", count, "BLOCK", block_ms, "STREAMS", *streams, *cursors)
        self._link.send([command])
        if self._id is not None and not self._link.wait(wait_ms / 1000):
            raise_error(exchange(waker, [("CLIENT", "UNBLOCK", self._id)])[0])
        return raise_error(self._link.receive(1)[0])

    def close(self) -> None:
        self._link.close()
