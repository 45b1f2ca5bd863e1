"""Finds deliveries whose lease ran out. Leases are the pending lists of the task streams (DESIGN 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from headrace_broker.connection import Command, Link, Reply, exchange, raise_error
from headrace_broker.errors import ServerError
from headrace_broker.keys import GROUP, PartitionKeys

from .inbox import Item, read_loss

_AT_ONCE = 128
"""Losses of one stream that are judged in one turn."""


class LeaseJudge:
    """When to look, and what was found. Times in seconds of a monotonic clock.

    Leases are judged only after one whole lease of uninterrupted contact with the server: its pause makes every entry
    look idle, though the keepers would have renewed them.
    """

    def __init__(self, lease_ms: int, now: float) -> None:
        self._lease = lease_ms / 1000
        self._lease_ms = lease_ms
        self._contact_since = now
        self._next = now

    @property
    def due(self) -> float:
        """When to look."""
        return max(self._next, self._contact_since + self._lease)

    def contact_lost(self, now: float) -> None:
        """The server did not answer for a while that matters."""
        self._contact_since = now

    def may_judge(self, now: float) -> bool:
        return now >= self.due

    def commands(self, keys: PartitionKeys, streams: Sequence[str]) -> list[Command]:
        """Asks for what is idle for longer than a lease; to be sent before a complete read of the inbox."""
        return [("XPENDING", keys.tasks(name), GROUP, "IDLE", self._lease_ms, "-", "+", _AT_ONCE) for name in streams]

    def items(
        self, link: Link, keys: PartitionKeys, streams: Sequence[str], replies: Sequence[Reply], now: float
    ) -> list[Item]:
        """The losses, each with the message that was handed out. The next look is a third of a lease later."""
        self._next = now + self._lease / 3
        lost: list[tuple[str, str, str]] = []
        for stream, reply in zip(streams, replies, strict=True):
            if isinstance(reply, ServerError):
                if "NOGROUP" in str(reply):
                    continue  # no worker ever subscribed, so nothing is pending
                raise reply
            rows = cast("list[list[Any]]", reply)
            if len(rows) == _AT_ONCE:
                self._next = now  # there may be more
            for id, consumer, _idle, _count in rows:
                lost.append((stream, id.decode(), consumer.decode(errors="replace")))
        if not lost:
            return []
        found = exchange(link, [("XRANGE", keys.tasks(stream), id, id) for stream, id, _ in lost])
        items: list[Item] = []
        for (stream, id, consumer), reply in zip(lost, found, strict=True):
            rows = cast("list[Any]", raise_error(reply))
            if not rows:  # settled since, in time; or taken out by a strange hand, and only its lease is left
                items.append(Item("leases", id, stream=stream, entry=id))
                continue
            fields = cast("list[bytes]", rows[0][1])
            items.append(read_loss(stream, id, dict(zip(fields[::2], fields[1::2], strict=False)), consumer))
        return items
