"""Announcements of workers: which keepers live, and what they serve. Written by keepers, read by owners and clients.

`<ns>:worker:<keeper>` is a string with a TTL: MessagePack `[version, keeper, host, pid, processes, concurrency,
started, streams, tasks]`. `<ns>:workers` is its index, by the time until which the keeper counts as alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, cast

from . import wire
from .clock import ASK, milliseconds
from .connection import Command
from .conversations import Conversation, ask
from .errors import MessageError
from .keys import Keys

VERSION: Final = 1
LEASES: Final = 3
"""Leases that an announcement lives; it is renewed three times a lease."""
FORGET_MS: Final = 3_600_000
"""How long the index remembers a keeper that is gone."""


class WorkerRecord(NamedTuple):
    """What a keeper says of itself. `started` is in ms by the server's clock; `streams` are names of task streams."""

    keeper: str
    host: str
    pid: int
    processes: int
    concurrency: int
    started: int
    streams: tuple[str, ...]
    tasks: tuple[str, ...]

    def to_wire(self) -> bytes:
        return wire.pack((VERSION, *self))

    @classmethod
    def from_wire(cls, data: bytes) -> WorkerRecord:
        """Raises `MessageError` for bytes that are no announcement this version can read."""
        version, *fields = wire.fields(wire.unpack(data), "an announcement of a worker", object)
        wire.version(version, VERSION, "The announcement of a worker")
        fields = wire.fields(fields, "the fields of an announcement", str, str, int, int, int, int, list, list)
        keeper, host, pid, processes, concurrency, started, streams, tasks = fields[:8]
        names = (tuple(str(name) for name in some) for some in (streams, tasks))
        return cls(keeper, host, pid, processes, concurrency, started, *names)


def announce(keys: Keys, record: WorkerRecord, now_ms: int, lease_ms: int) -> list[Command]:
    """One transaction. `now_ms` is by the server's clock."""
    life = LEASES * lease_ms
    return [
        ("MULTI",),
        ("SET", keys.worker(record.keeper), record.to_wire(), "PX", life),
        ("ZADD", keys.workers, now_ms + life, record.keeper),
        ("ZREMRANGEBYSCORE", keys.workers, "-inf", now_ms - FORGET_MS),
        ("EXEC",),
    ]


def withdraw(keys: Keys, keeper: str) -> list[Command]:
    """One transaction; for a clean shutdown."""
    return [("MULTI",), ("DEL", keys.worker(keeper)), ("ZREM", keys.workers, keeper), ("EXEC",)]


def live_workers(keys: Keys) -> Conversation[list[WorkerRecord]]:
    """The announcements of all keepers that live, by name; those of a newer version are left out."""
    (time,) = yield from ask(ASK)
    now_ms = milliseconds(time)
    (names,) = yield from ask(("ZRANGEBYSCORE", keys.workers, now_ms, "+inf"))
    if not names:
        return []
    # As bytes: a strange hand's name may be no text.
    (found,) = yield from ask(("MGET", *(keys.worker("").encode() + name for name in sorted(names))))
    return _readable(cast("Sequence[bytes | None]", found))


def _readable(found: Sequence[bytes | None]) -> list[WorkerRecord]:
    records: list[WorkerRecord] = []
    for data in found:
        if data is not None:
            try:
                records.append(WorkerRecord.from_wire(data))
            except MessageError:
                continue
    return records
