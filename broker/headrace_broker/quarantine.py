"""The quarantine: bad entries with their reason, a stream in each partition (invariant 9, ADR 4).

| field | meaning |
| --- | --- |
| `source` | where the entry came from: `events starts signals timers leases repair` |
| `entry` | its id there |
| `instance` | its instance, if that is known |
| `reason` | what is wrong with it |
| `parked` | "1": its instance is blocked and keeps it too, so it goes on with `unblock` |
| `cut` | how many bytes it had, if it was too large to be kept whole |
| `raw:<name>` | its own fields |

People name an entry `<partition>:<id>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from shlex import quote
from typing import Any, Final, NamedTuple, cast

from . import messages, raw_signals, scripting
from .connection import Argument, Command
from .conversations import Conversation, ask
from .errors import (
    ConfigurationError,
    HeadraceError,
    InstanceFinished,
    InstanceNotFound,
    QuarantineEntryNotFound,
    QuarantineRetryRefused,
)
from .ids import entry_key, new_request_id
from .keys import PartitionKeys
from .messages import FIELD, Message
from .namespace import Namespace
from .requests import ANSWER_MS
from .snapshots import moment

LIMIT: Final = 10_000
"""Entries of a partition; older ones are trimmed."""
WHOLE_BYTES: Final = 20 * 1024
"""An entry up to this size is kept whole: an inline value, and what is around it."""
WHOLE_FIELDS: Final = 64
CUT_BYTES: Final = 4096
"""What is kept of each field of a larger one."""
CUT_FIELDS: Final = 16
PAGE_LIMIT: Final = 1000

_PREFIX: Final = b"raw:"
_ID: Final = re.compile(r"(\d{1,4}):(\d{1,20}-\d{1,20})")


def write(
    keys: PartitionKeys,
    source: str,
    entry: str,
    instance: str,
    reason: str,
    raw: Mapping[bytes, bytes],
    *,
    parked: bool = False,
) -> Command:
    """The command that puts an entry into quarantine."""
    fields: list[Argument] = ["source", source, "entry", entry, "instance", instance, "reason", reason]
    if parked:
        fields += ("parked", "1")
    size = sum(len(name) + len(value) for name, value in raw.items())
    kept = list(raw.items())
    if size > WHOLE_BYTES or len(kept) > WHOLE_FIELDS:
        fields += ("cut", size)
        kept = [(name[:100], value[:CUT_BYTES]) for name, value in kept[:CUT_FIELDS]]
    for name, value in kept:
        fields += (_PREFIX + name, value)
    return ("XADD", keys.quarantine, "MAXLEN", "~", LIMIT, "*", *fields)


@dataclass(frozen=True)
class Quarantined:
    """One entry. `cut` 0: it is whole. `at`: when it was put there."""

    partition: int
    entry: str
    at: datetime
    source: str
    source_entry: str
    instance: str
    reason: str
    parked: bool
    cut: int
    raw: Mapping[bytes, bytes]

    @property
    def id(self) -> str:
        return f"{self.partition}:{self.entry}"

    def message(self) -> Message | None:
        """What it says, as far as this release can read it."""
        try:
            if self.source == "signals":
                return raw_signals.parse(self.raw)
            return messages.unpack(self.raw[FIELD])
        except (HeadraceError, KeyError, ValueError):
            return None

    def obstacle(self) -> str | None:
        """Why it cannot go back to where it came from; None if it can."""
        if self.parked:
            return f"its instance keeps it too, and takes it when it goes on: headrace unblock {quote(self.instance)}"
        if self.cut:
            return f"it had {self.cut:,} bytes and was cut; send it anew"
        if self.source == "signals":
            try:
                raw_signals.parse(self.raw)
            except (HeadraceError, ValueError) as error:
                return f"it is no raw signal: {str(error).rstrip('.')}"
            return None
        if self.source in ("events", "starts") and FIELD in self.raw:
            return None
        return f"what came from {self.source or 'nowhere'} has no place to go back to"


@dataclass(frozen=True)
class QuarantinePage:
    """Some entries, newest first. With a `cursor` there may be more: ask again with it."""

    items: tuple[Quarantined, ...]
    cursor: str | None


class _Place(NamedTuple):
    """Newest first is by time, then by number, then by partition."""

    milliseconds: int
    number: int
    partition: int


def list_quarantine(
    namespace: Namespace, *, limit: int = 50, cursor: str | None = None
) -> Conversation[QuarantinePage]:
    """Entries of all partitions, newest first. Raises `ConfigurationError` for a bad limit (1 to 1,000) or cursor."""
    if not 1 <= limit <= PAGE_LIMIT:
        raise ConfigurationError(f"A page has 1 to {PAGE_LIMIT} entries; got {limit}.")
    before = None if cursor is None else parse_id(namespace, cursor)
    commands: list[Command] = []
    for number, keys in enumerate(namespace.all_partitions):
        end = "+" if before is None else before[1] if number < before[0] else f"({before[1]}"
        commands.append(("XREVRANGE", keys.quarantine, end, "-", "COUNT", limit))
    replies = yield from ask(*commands)
    found = [_entry(number, *row) for number, rows in enumerate(replies) for row in cast("list[Any]", rows)]
    found.sort(key=_place, reverse=True)
    items = tuple(found[:limit])
    return QuarantinePage(items, items[-1].id if len(found) > limit or len(items) == limit else None)


def count_quarantine(namespace: Namespace) -> Conversation[int]:
    replies = yield from ask(*(("XLEN", keys.quarantine) for keys in namespace.all_partitions))
    return sum(replies)


def read_quarantined(namespace: Namespace, id: str) -> Conversation[Quarantined]:
    """Raises `ConfigurationError` for what is no id, `QuarantineEntryNotFound`."""
    number, entry = parse_id(namespace, id)
    (rows,) = yield from ask(("XRANGE", namespace.all_partitions[number].quarantine, entry, entry))
    if not rows:
        raise _not_found(id)
    return _entry(number, *rows[0])


def drop_quarantined(namespace: Namespace, ids: Sequence[str]) -> Conversation[int]:
    """How many of them were there and are gone now. Raises `ConfigurationError` for what is no id."""
    by_partition: dict[int, list[str]] = {}
    for number, entry in (parse_id(namespace, id) for id in ids):
        by_partition.setdefault(number, []).append(entry)
    if not by_partition:
        return 0
    replies = yield from ask(
        *(("XDEL", namespace.all_partitions[number].quarantine, *found) for number, found in by_partition.items())
    )
    return sum(replies)


@dataclass(frozen=True)
class RetryRequest:
    """The wish that a quarantined entry be tried again. Raises `QuarantineRetryRefused` when made."""

    entry: Quarantined
    request: str = field(default_factory=new_request_id)

    def __post_init__(self) -> None:
        if (obstacle := self.entry.obstacle()) is not None:
            raise QuarantineRetryRefused(f"Entry {self.entry.id} cannot be retried: {obstacle}.", entry=self.entry.id)

    def hold(self, namespace: Namespace) -> Conversation[str]:
        """The id of its new entry.

        Raises `QuarantineEntryNotFound`; of a raw signal also `InstanceNotFound` and `InstanceFinished`, and it stays.
        """
        entry = self.entry
        keys = namespace.all_partitions[entry.partition]
        message, header = b"", keys.quarantine
        if entry.source == "signals":
            signal = raw_signals.parse(entry.raw)
            message, header = messages.pack(signal), keys.header(signal.instance)
        reply = yield from scripting.call(
            scripting.load("retry"),
            [
                keys.quarantine,
                keys.starts if entry.source == "starts" else keys.events,
                keys.request(self.request),
                header,
            ],
            [entry.entry, ANSWER_MS, message],
        )
        answer, detail = (part.decode() for part in reply)
        match answer:
            case "retried":
                return str(detail)
            case "unknown":
                raise InstanceNotFound(
                    f"Entry {entry.id} stays: no instance of id {entry.instance!r} is known.", instance=entry.instance
                )
            case "ended":
                raise InstanceFinished(
                    f"Entry {entry.id} stays: instance {entry.instance!r} takes no more signals, it is {detail}.",
                    instance=entry.instance,
                    status=detail,
                )
            case _:
                raise _not_found(entry.id)


def parse_id(namespace: Namespace, id: str) -> tuple[int, str]:
    """(partition, entry). Raises `ConfigurationError`."""
    match = _ID.fullmatch(id)
    if match is None or int(match[1]) >= namespace.partitions:
        raise ConfigurationError(
            f"A quarantined entry is named <partition>:<id>, such as 0:1700000000000-0; got {id!r}. "
            "List them: headrace quarantine ls"
        )
    return int(match[1]), match[2]


def _not_found(id: str) -> QuarantineEntryNotFound:
    return QuarantineEntryNotFound(f"No entry {id} is in quarantine. List them: headrace quarantine ls", entry=id)


def _entry(partition: int, id: bytes, fields: Sequence[bytes]) -> Quarantined:
    """Whatever lies there, for a strange hand may have put it."""
    pairs = dict(zip(fields[::2], fields[1::2], strict=False))
    texts = {name: value.decode(errors="replace") for name, value in pairs.items() if not name.startswith(_PREFIX)}
    raw = {name.removeprefix(_PREFIX): value for name, value in pairs.items() if name.startswith(_PREFIX)}
    entry = id.decode()
    cut = texts.get(b"cut", "0")
    return Quarantined(
        partition,
        entry,
        _moment(entry),
        texts.get(b"source", ""),
        texts.get(b"entry", ""),
        texts.get(b"instance", "") or raw.get(b"instance", b"").decode(errors="replace"),
        texts.get(b"reason", ""),
        texts.get(b"parked") == "1",
        int(cut) if cut.isdecimal() else 1,
        raw,
    )


def _moment(entry: str) -> datetime:
    try:
        return moment(int(entry.partition("-")[0]))
    except (OverflowError, ValueError):  # an id by a strange hand
        return moment(0)


def _place(entry: Quarantined) -> _Place:
    return _Place(*entry_key(entry.entry), entry.partition)
