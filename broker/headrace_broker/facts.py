"""What `headrace doctor` looks at, read in a bounded number of bounded reads. Nothing here judges or changes anything.

A server may refuse INFO and CONFIG, and any key may be of another type than ours: what cannot be read is None, or said
in `problems`, and the rest is read all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from . import messages
from .connection import Command, Reply
from .conversations import Conversation
from .definitions import Definition
from .errors import MessageError, ServerError
from .instances import parse_index_member
from .keys import Keys
from .messages import FIELD, TaskMessage
from .namespace import FORMAT, MAX_PARTITIONS, Namespace
from .quarantine import Quarantined, list_quarantine
from .server_facts import ServerFacts, read_server
from .snapshots import Snapshot, decode_header
from .workers import WorkerRecord

NEWEST: Final = 3
"""Blocked instances and quarantined entries that are shown."""
_CHUNK: Final = 512
_STREAMS: Final = 200
"""Task streams, and flows, that are looked at."""
_SAMPLE: Final = 32
"""Tasks at the head of each task stream whose names are read."""


@dataclass(frozen=True)
class Inbox:
    """Entries that wait, and since when the oldest does (ms)."""

    length: int
    oldest_ms: int | None


@dataclass(frozen=True)
class PartitionFacts:
    """`owner_ttl_ms`: None without an owner, -1 for an owner key that does not run out."""

    number: int
    owner_ttl_ms: int | None
    repairing: bool
    events: Inbox
    starts: Inbox
    outbox: Inbox
    blocked: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class QueueFacts:
    """A task stream over all partitions. `tasks` are the names of tasks that wait at its heads."""

    stream: str
    length: int
    tasks: frozenset[str]


@dataclass(frozen=True)
class FlowFacts:
    """A registered flow. `calls`: (stream, task) of its current definition; `problem`: why that is not known."""

    name: str
    calls: frozenset[tuple[str, str]]
    problem: str | None = None


@dataclass(frozen=True)
class Facts:
    """`partitions` None: there is no such namespace. `server_ms` is the server's clock."""

    namespace: str
    server_ms: int
    server: ServerFacts
    partitions: tuple[PartitionFacts, ...] | None = None
    problems: tuple[str, ...] = ()
    """Keys of the whole namespace that cannot be read."""
    left_out: tuple[str, ...] = ()
    """What there is too much of to look at all."""
    signals: Inbox = Inbox(0, None)
    queues: tuple[QueueFacts, ...] = ()
    workers: tuple[WorkerRecord, ...] = ()
    unreadable_workers: tuple[str, ...] = ()
    flows: tuple[FlowFacts, ...] = ()
    blocked: tuple[Snapshot, ...] = ()
    """The newest ones."""
    quarantined: int = 0
    quarantine: tuple[Quarantined, ...] = ()
    """The newest ones."""


def read_facts(name: str) -> Conversation[Facts]:
    """Raises `ServerError` only for a server that does not tell its time, `ConfigurationError` for a bad name."""
    keys = Keys(name)
    (time,) = yield [("TIME",)]
    if isinstance(time, ServerError):
        raise time
    server_ms = int(time[0]) * 1000 + int(time[1]) // 1000
    server = yield from read_server()
    (opened,) = yield [("HMGET", keys.namespace, "partitions", "format")]
    if opened == [None, None]:
        return Facts(name, server_ms, server)
    count, form = _pair(opened)
    if not count.isdigit() or not 1 <= int(count) <= MAX_PARTITIONS:
        return Facts(name, server_ms, server, (), (f"{keys.namespace} is not what Headrace wrote: {opened}",))
    if form != str(FORMAT).encode():
        problem = f"{keys.namespace} has format {form.decode(errors='replace')!r}; this release reads format {FORMAT}"
        return Facts(name, server_ms, server, (), (problem,))
    namespace = Namespace(keys, int(count))
    problems: list[str] = []
    left_out: list[str] = []
    partitions = yield from _partitions(namespace)
    signals = yield from _inboxes([keys.signals], problems)
    queues = yield from _queues(namespace, problems, left_out)
    workers, unreadable = yield from _workers(keys, server_ms, problems)
    flows = yield from _flows(keys, problems, left_out)
    blocked = yield from _blocked(namespace, problems)
    quarantined, newest = yield from _quarantine(namespace, problems)
    return Facts(
        name,
        server_ms,
        server,
        partitions,
        tuple(problems),
        tuple(left_out),
        signals[0],
        queues,
        workers,
        unreadable,
        flows,
        blocked,
        quarantined,
        newest,
    )


def _partitions(namespace: Namespace) -> Conversation[tuple[PartitionFacts, ...]]:
    found: list[PartitionFacts] = []
    for number, keys in enumerate(namespace.all_partitions):
        problems: list[str] = []
        owner, meta, blocked = yield [
            ("PTTL", keys.owner),
            ("HMGET", keys.meta, "commit", "repair"),
            ("ZCARD", keys.by_status("blocked")),
        ]
        inboxes = yield from _inboxes([keys.events, keys.starts, keys.outbox], problems)
        commit, repair = _pair(_checked(meta, keys.meta, problems))
        if commit and not commit.isdigit():
            problems.append(f"{keys.meta}: its commit number is {commit!r}")
        ttl = _checked(owner, keys.owner, problems)
        found.append(
            PartitionFacts(
                number,
                None if ttl is None or ttl == -2 else ttl,
                bool(repair),
                inboxes[0],
                inboxes[1],
                inboxes[2],
                _checked(blocked, keys.by_status("blocked"), problems) or 0,
                tuple(problems),
            )
        )
    return tuple(found)


def _inboxes(streams: Sequence[str], problems: list[str]) -> Conversation[list[Inbox]]:
    commands: list[Command] = []
    for stream in streams:
        commands += (("XLEN", stream), ("XRANGE", stream, "-", "+", "COUNT", 1))
    replies = yield commands
    found: list[Inbox] = []
    for stream, length, rows in zip(streams, replies[::2], replies[1::2], strict=True):
        if isinstance(length, ServerError) or isinstance(rows, ServerError):
            problems.append(f"{stream}: {length}")
            found.append(Inbox(0, None))
        else:
            oldest = int(rows[0][0].partition(b"-")[0]) if rows else None
            found.append(Inbox(length, oldest))
    return found


def _queues(namespace: Namespace, problems: list[str], left_out: list[str]) -> Conversation[tuple[QueueFacts, ...]]:
    (members,) = yield [("SMEMBERS", namespace.keys.queues)]
    names = _some("task streams", _texts(_checked(members, namespace.keys.queues, problems)), left_out)
    found: list[QueueFacts] = []
    for name in names:
        length, tasks = 0, set[str]()
        for start in range(0, namespace.partitions, _CHUNK):
            streams = [keys.tasks(name) for keys in namespace.all_partitions[start : start + _CHUNK]]
            replies = yield [("XLEN", stream) for stream in streams]
            held: list[str] = []
            for stream, reply in zip(streams, replies, strict=True):
                if waiting := _checked(reply, stream, problems):
                    length += waiting
                    held.append(stream)
            samples = (yield [("XRANGE", stream, "-", "+", "COUNT", _SAMPLE) for stream in held]) if held else []
            tasks |= {task for rows in samples if not isinstance(rows, ServerError) for task in _task_names(rows)}
        found.append(QueueFacts(name, length, frozenset(tasks)))
    return tuple(found)


def _task_names(rows: Sequence[Any]) -> Iterator[str]:
    for _, fields in rows:
        data = dict(zip(fields[::2], fields[1::2], strict=False)).get(FIELD, b"")
        try:
            message = messages.unpack(data)
        except MessageError:
            continue
        if isinstance(message, TaskMessage):
            yield message.task


def _workers(
    keys: Keys, now_ms: int, problems: list[str]
) -> Conversation[tuple[tuple[WorkerRecord, ...], tuple[str, ...]]]:
    (names,) = yield [("ZRANGEBYSCORE", keys.workers, now_ms, "+inf", "LIMIT", 0, 10_000)]
    live = _texts(_checked(names, keys.workers, problems))
    records: list[WorkerRecord] = []
    unreadable: list[str] = []
    for start in range(0, len(live), _CHUNK):
        chunk = live[start : start + _CHUNK]
        replies = yield [("GET", keys.worker(name)) for name in chunk]
        for name, reply in zip(chunk, replies, strict=True):
            if reply is None:  # it ran out just now
                continue
            try:
                records.append(WorkerRecord.from_wire(_bytes(reply)))
            except MessageError as error:
                unreadable.append(f"{name}: {error}")
    return tuple(records), tuple(unreadable)


def _flows(keys: Keys, problems: list[str], left_out: list[str]) -> Conversation[tuple[FlowFacts, ...]]:
    (members,) = yield [("SMEMBERS", keys.flows)]
    names = _some("flows", _texts(_checked(members, keys.flows, problems)), left_out)
    found: list[FlowFacts] = []
    for name in names:
        (record,) = yield [("HMGET", keys.flow(name), "version", "hash")]
        version, hash = _pair(record)
        if not version.isdigit() or not hash:
            found.append(FlowFacts(name, frozenset(), f"its record {keys.flow(name)} cannot be read: {record}"))
            continue
        digest = hash.decode(errors="replace")
        (data,) = yield [("GET", keys.definition(digest))]
        if data is None:
            found.append(FlowFacts(name, frozenset(), f"its definition {digest} is not stored"))
            continue
        try:
            calls = Definition.from_wire(_bytes(data)).calls()
            found.append(FlowFacts(name, frozenset((call.stream, call.task) for call in calls)))
        except MessageError as error:
            found.append(FlowFacts(name, frozenset(), f"its definition {digest} cannot be read: {error}"))
    return tuple(found)


def _blocked(namespace: Namespace, problems: list[str]) -> Conversation[tuple[Snapshot, ...]]:
    replies = yield [
        ("ZREVRANGE", keys.by_status("blocked"), 0, NEWEST - 1, "WITHSCORES") for keys in namespace.all_partitions
    ]
    rows: list[tuple[float, str]] = []
    for reply in replies:
        if not isinstance(reply, ServerError):  # told with its partition
            for member, score in zip(reply[::2], reply[1::2], strict=True):
                try:
                    rows.append((float(score), parse_index_member(member)[1]))
                except MessageError as error:
                    problems.append(str(error))
    found: list[Snapshot] = []
    for _, instance in sorted(rows, reverse=True)[:NEWEST]:
        (header,) = yield [("HGETALL", namespace.of(instance).header(instance))]
        try:
            found.append(decode_header(instance, [] if isinstance(header, ServerError) else header))
        except MessageError as error:
            problems.append(str(error))
    return tuple(found)


def _quarantine(namespace: Namespace, problems: list[str]) -> Conversation[tuple[int, tuple[Quarantined, ...]]]:
    replies = yield [("XLEN", keys.quarantine) for keys in namespace.all_partitions]
    keys = [keys.quarantine for keys in namespace.all_partitions]
    count = sum(_checked(reply, key, problems) or 0 for key, reply in zip(keys, replies, strict=True))
    if not count or any(isinstance(reply, ServerError) for reply in replies):
        return count, ()
    return count, (yield from list_quarantine(namespace, limit=NEWEST)).items


def _checked(reply: Reply, key: str, problems: list[str]) -> Any:
    """The reply; None, and a problem, for an error."""
    if isinstance(reply, ServerError):
        problems.append(f"{key}: {reply}")
        return None
    return reply


def _some(what: str, names: Sequence[str], left_out: list[str]) -> list[str]:
    """The first by name, and a word about the others."""
    if len(names) > _STREAMS:
        left_out.append(f"{len(names) - _STREAMS} {what}")
    return sorted(names)[:_STREAMS]


def _pair(reply: Reply) -> tuple[bytes, bytes]:
    """Two fields of a hash; empty if they are not there."""
    first, second = (None, None) if reply is None or isinstance(reply, ServerError) else reply
    return first or b"", second or b""


def _texts(reply: Sequence[bytes] | None) -> list[str]:
    return [name.decode(errors="replace") for name in reply or ()]


def _bytes(reply: Reply) -> bytes:
    """Raises `MessageError` for an error."""
    if isinstance(reply, ServerError):
        raise MessageError(str(reply))
    return cast(bytes, reply)
