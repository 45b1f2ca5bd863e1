"""Task streams: how ready tasks are read, kept, settled and handed back. Used by children, keepers, the RQ bridge.

A *source* is one task stream of one partition. Its one consumer group's pending list is the list of leases (DESIGN 8):
an entry is held by the consumer that read it, its idle time is the age of the lease, and whoever takes it out
(XACK + XDEL) has settled or revoked it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple, cast

from . import scripting
from .connection import Command, Reply, raise_error
from .conversations import Conversation
from .errors import ServerError
from .keys import GROUP, Keys, PartitionKeys

VALUE_LIFE_MS: Final = 3_600_000
"""How long a value that no commit has adopted yet lives (invariant 8)."""

_PAGE = 512


class Source(NamedTuple):
    """A task stream. `stream` is its name within the partition, `key` its key."""

    partition: PartitionKeys
    stream: str
    key: str


class Delivery(NamedTuple):
    """One entry handed to this consumer. `raw` is None if the stream has lost it, or it has no message field."""

    source: Source
    entry: str
    raw: bytes | None


class Settlement(NamedTuple):
    """How a delivery ends, in one partition: values to write, events to append, the entry to take out.

    `message` None appends nothing; `source` None takes nothing out.
    """

    message: bytes | None
    source: Source | None = None
    entry: str = ""
    write: tuple[str, bytes] | None = None


def sources(partitions: Iterable[PartitionKeys], streams: Iterable[str]) -> tuple[Source, ...]:
    """Every source of these streams, partition by partition."""
    names = sorted(streams)
    return tuple(Source(partition, name, partition.tasks(name)) for partition in partitions for name in names)


def ensure_groups(keys: Keys, wanted: Sequence[Source]) -> Conversation[None]:
    """Makes the streams and their group, which begins at the first entry, and enters the streams' names. Idempotent.

    Raises `ServerError`.
    """
    if not wanted:
        return
    replies = yield [
        *(("XGROUP", "CREATE", source.key, GROUP, "0", "MKSTREAM") for source in wanted),
        ("SADD", keys.queues, *sorted({source.stream for source in wanted})),
    ]
    for reply in replies:
        if not (isinstance(reply, ServerError) and str(reply).startswith("BUSYGROUP")):
            raise_error(reply)


def read(consumer: str, wanted: Sequence[Source], count: int) -> Command:
    """New entries without waiting, at most `count` of *each* source (COUNT is per stream ✓)."""
    keys = [source.key for source in wanted]
    return ("XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, "STREAMS", *keys, *([">"] * len(keys)))


def read_blocking(consumer: str, wanted: Sequence[Source], block_ms: int) -> Command:
    """Waits up to `block_ms` for a new entry; at most one of each source."""
    keys = [source.key for source in wanted]
    head = ("XREADGROUP", "GROUP", GROUP, consumer, "COUNT", 1, "BLOCK", block_ms, "STREAMS")
    return (*head, *keys, *([">"] * len(keys)))


def read_pending(
    consumer: str, wanted: Sequence[Source], known: Callable[[Delivery], bool]
) -> Conversation[list[Delivery]]:
    """What the consumer holds already and does not know of, since a reply was lost or it is another process now."""
    found: list[Delivery] = []
    after = dict.fromkeys(wanted, "0-0")
    while after:
        asked = list(after)
        replies = yield [
            ("XREADGROUP", "GROUP", GROUP, consumer, "COUNT", _PAGE, "STREAMS", source.key, after[source])
            for source in asked
        ]
        for source, reply in zip(asked, replies, strict=True):
            page = parse(reply, {source.key.encode(): source})
            found += [delivery for delivery in page if not known(delivery)]
            if len(page) < _PAGE:
                del after[source]
            else:
                after[source] = page[-1].entry
    return found


def parse(reply: Reply, table: Mapping[bytes, Source]) -> list[Delivery]:
    """The deliveries in a reply to any of the reads. Raises `ServerError` if it is one."""
    found: list[Delivery] = []
    for key, entries in raise_error(reply) or ():
        source = table[key]
        for entry, fields in entries:
            if fields and fields[0] == b"m":
                raw: bytes | None = fields[1]
            else:
                raw = _message_field(fields)
            found.append(Delivery(source, entry.decode(), raw))
    return found


def _message_field(fields: Sequence[bytes] | None) -> bytes | None:
    pairs = fields or ()
    return dict(zip(pairs[::2], pairs[1::2], strict=False)).get(b"m")


def is_no_group(error: ServerError) -> bool:
    """True if the stream or its group is gone: after FLUSHALL, or a failover to a server that never had it."""
    return str(error).startswith("NOGROUP")


def renew(consumer: str, key: str, entries: Sequence[str]) -> list[Command]:
    """Renews leases of entries of the stream at `key`. The replies list those still leased: see `renewed`."""
    return [
        ("XCLAIM", key, GROUP, consumer, 0, *entries[start : start + _PAGE], "JUSTID")
        for start in range(0, len(entries), _PAGE)
    ]


def renewed(replies: Iterable[Reply]) -> frozenset[str]:
    """The entries whose lease was renewed. Raises `ServerError`, but not for a vanished group: it leases nothing."""
    alive: set[str] = set()
    for reply in replies:
        if not (isinstance(reply, ServerError) and is_no_group(reply)):
            alive.update(entry.decode() for entry in raise_error(reply) or () if entry)
    return frozenset(alive)


def pending(consumer: str, wanted: Sequence[Source]) -> Conversation[list[Delivery]]:
    """All that a consumer holds, read by someone else. Raises `ServerError`."""
    held: list[tuple[Source, str]] = []
    after = dict.fromkeys(wanted, "-")
    while after:
        asked = list(after)
        replies = yield [("XPENDING", source.key, GROUP, after[source], "+", _PAGE, consumer) for source in asked]
        for source, reply in zip(asked, replies, strict=True):
            if isinstance(reply, ServerError) and is_no_group(reply):
                reply = []
            page = [row[0].decode() for row in raise_error(reply) or ()]
            held += [(source, entry) for entry in page]
            if len(page) < _PAGE:
                del after[source]
            else:
                after[source] = f"({page[-1]}"
    found: list[Delivery] = []
    for start in range(0, len(held), _PAGE):
        chunk = held[start : start + _PAGE]
        replies = yield [("XRANGE", source.key, entry, entry) for source, entry in chunk]
        for (source, entry), reply in zip(chunk, replies, strict=True):
            rows = raise_error(reply)
            found.append(Delivery(source, entry, _message_field(rows[0][1]) if rows else None))
    return found


def settle(partition: PartitionKeys, batch: Iterable[Settlement]) -> list[Command]:
    """One transaction: values, events, acknowledgements, deletions. Check its replies with `check_settled`."""
    commands: list[Command] = [("MULTI",)]
    done: dict[str, list[str]] = {}
    events = partition.events
    for message, source, entry, write in batch:
        if write is not None:
            commands.append(("SET", write[0], write[1], "PX", VALUE_LIFE_MS))
        if message is not None:
            commands.append(("XADD", events, "*", "m", message))
        if source is not None:
            done.setdefault(source.key, []).append(entry)
    for key, entries in done.items():
        commands.append(("XACK", key, GROUP, *entries))
        commands.append(("XDEL", key, *entries))
    commands.append(("EXEC",))
    return commands


def check_settled(replies: Sequence[Reply]) -> None:
    """Raises `ServerError` unless the transaction of `settle` was applied, every part of it."""
    answer = replies[-1]
    if type(answer) is list:
        for part in cast("list[object]", answer):
            if isinstance(part, Exception):
                raise ServerError(f"Part of a settled batch failed: {part}")
        return
    # The first refusal says why; EXEC only says that there was one.
    for reply in replies:
        raise_error(reply)
    raise ServerError(f"EXEC answered {answer!r}.")


@cache
def _drop_consumer() -> scripting.Script:
    return scripting.load("drop_consumer")


def drop_consumer(consumer: str, wanted: Sequence[Source]) -> Conversation[list[Source]]:
    """Deletes the consumer wherever nothing is pending for it (else entries are lost ✓); returns where something is.

    Raises `ServerError`.
    """
    script = _drop_consumer()
    replies = yield [script.command([source.key], [GROUP, consumer]) for source in wanted]
    if any(scripting.is_unknown(reply) for reply in replies):
        replies = yield [script.full_command([source.key], [GROUP, consumer]) for source in wanted]
    return [source for source, reply in zip(wanted, replies, strict=True) if raise_error(reply) == 0]
