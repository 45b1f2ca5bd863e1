"""Listing instances: the indexes of all partitions, merged by creation time, newest first, a page at a time.

A cursor is a position (creation, member of the index), not a rank: an instance that changes its status between two
pages is neither shown twice nor left out, for its creation stays.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from . import wire
from .connection import Command, Reply, is_wrong_type, raise_error
from .conversations import Conversation, ask, ask_together
from .errors import ConfigurationError, MessageError
from .instances import STATUSES, Status, parse_index_member
from .keys import PartitionKeys
from .namespace import Namespace
from .snapshots import Snapshot, decode_header, milliseconds

MAX_LIMIT: Final = 1000
_ROUNDS: Final = 20
"""Reads per page while a second filter drops most of what the index gives; the page is then short, its cursor set."""
_TIES: Final = 10_000
"""Instances of one partition and index created in one millisecond."""


class Position(NamedTuple):
    """Where a page ended: everything after it has a smaller (created, member)."""

    created: int
    member: bytes


@dataclass(frozen=True)
class Page:
    """Some instances, newest first. With a `cursor` there may be more: ask again with it."""

    items: tuple[Snapshot, ...]
    cursor: str | None


class _Found(NamedTuple):
    created: int
    member: bytes
    partition: PartitionKeys

    @property
    def position(self) -> Position:
        return Position(self.created, self.member)


@dataclass(frozen=True)
class Filter:
    """Which instances. `since` and `until` bound the creation, both inclusive."""

    status: Status | None = None
    flow: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        if self.status is not None and self.status not in STATUSES:
            raise ConfigurationError(f"A status is one of {', '.join(STATUSES)}; got {self.status!r}.")
        _check_kind("flow", self.flow, str)
        _check_kind("since", self.since, datetime)
        _check_kind("until", self.until, datetime)

    def keeps(self, snapshot: Snapshot) -> bool:
        return (self.status is None or snapshot.status == self.status) and (
            self.flow is None or snapshot.flow == self.flow
        )


def _check_kind(what: str, given: object, kind: type) -> None:
    if given is not None and not isinstance(given, kind):
        raise ConfigurationError(f"{what} is a {kind.__name__}; got {type(given).__name__} {given!r:.80}.")


def list_instances(
    namespace: Namespace, which: Filter, *, limit: int = 100, cursor: str | None = None
) -> Conversation[Page]:
    """A page of at most `limit` (1 to 1,000) instances. Raises `ConfigurationError` for a bad limit or cursor."""
    if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
        raise ConfigurationError(f"A page has 1 to {MAX_LIMIT} instances; got {limit!r:.80}.")
    after = None if cursor is None else decode_cursor(cursor)
    items: list[Snapshot] = []
    by_flow = yield from _prefers_flow(namespace, which)
    for _ in range(_ROUNDS):
        found = yield from _read_index(namespace, which, by_flow, limit, after)
        snapshots = yield from _read_headers(found)
        for place, snapshot in zip(found, snapshots, strict=True):
            after = place.position
            if snapshot is not None and which.keeps(snapshot):
                items.append(snapshot)
                if len(items) == limit:
                    return Page(tuple(items), encode_cursor(after))
        if len(found) < limit:
            return Page(tuple(items), None)
    return Page(tuple(items), None if after is None else encode_cursor(after))


def encode_cursor(position: Position) -> str:
    return base64.urlsafe_b64encode(wire.pack(tuple(position))).decode().rstrip("=")


def decode_cursor(cursor: str) -> Position:
    """Raises `ConfigurationError` for what is no cursor."""
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        created, member = wire.fields(wire.unpack(data), "a creation and a member", int, bytes)[:2]
        return Position(created, member)
    except (binascii.Error, ValueError, TypeError, MessageError):
        raise ConfigurationError(f"Not a cursor: {cursor!r}. Take it from the page before, unchanged.") from None


def _prefers_flow(namespace: Namespace, which: Filter) -> Conversation[bool]:
    """With both filters, the smaller index is read and the other filter applied to the headers."""
    if which.status is None or which.flow is None:
        return which.flow is not None
    sizes = yield from ask(
        *(("ZCARD", keys.by_status(which.status)) for keys in namespace.all_partitions),
        *(("ZCARD", keys.by_flow(which.flow)) for keys in namespace.all_partitions),
    )
    return sum(sizes[namespace.partitions :]) < sum(sizes[: namespace.partitions])


def _read_index(
    namespace: Namespace, which: Filter, by_flow: bool, limit: int, after: Position | None
) -> Conversation[list[_Found]]:
    """The next members of the chosen indexes over all partitions, merged; fewer than `limit` if there are no more."""
    low = "-inf" if which.since is None else str(milliseconds(which.since))
    high = "+inf" if which.until is None else str(milliseconds(which.until))
    if after is not None and (high == "+inf" or after.created <= int(high)):
        high = f"({after.created}"
    else:
        after = None
    groups: list[list[Command]] = []
    for keys in namespace.all_partitions:
        # One moment per partition: an instance that moves from one status to another is then seen once.
        commands: list[Command] = []
        for index in _indexes(keys, which, by_flow):
            commands.append(("ZREVRANGEBYSCORE", index, high, low, "WITHSCORES", "LIMIT", 0, limit))
            if after is not None:
                score = str(after.created)
                commands.append(("ZREVRANGEBYSCORE", index, score, score, "WITHSCORES", "LIMIT", 0, _TIES))
        groups.append(commands)
    answers = yield from ask_together(*groups)
    found: dict[bytes, _Found] = {}
    for keys, answer in zip(namespace.all_partitions, answers, strict=True):
        for flat in answer:
            for member, score in zip(flat[::2], flat[1::2], strict=True):
                place = _Found(int(float(score)), member, keys)
                if after is None or place.position < after:
                    found[member] = place
    return sorted(found.values(), key=lambda place: place.position, reverse=True)[:limit]


def _indexes(keys: PartitionKeys, which: Filter, by_flow: bool) -> Sequence[str]:
    if by_flow and which.flow is not None:
        return [keys.by_flow(which.flow)]
    return [keys.by_status(which.status)] if which.status else [keys.by_status(status) for status in STATUSES]


def _read_headers(found: Sequence[_Found]) -> Conversation[list[Snapshot | None]]:
    """The headers of index members; None for one that is gone, cannot be read, or is no member of ours."""
    names: list[tuple[str, str]] = []
    for place in found:
        try:
            names.append(parse_index_member(place.member))
        except MessageError:
            names.append(("", ""))
    if not names:
        return []
    replies = yield [("HGETALL", place.partition.header(name)) for place, (_, name) in zip(found, names, strict=True)]
    snapshots = [_snapshot(name, inc, fields) for (inc, name), fields in zip(names, replies, strict=True)]
    older = [number for number, snapshot in enumerate(snapshots) if snapshot is None and names[number][0]]
    if older:
        replies = yield [("HGETALL", found[number].partition.archive(names[number][0])) for number in older]
        for number, fields in zip(older, replies, strict=True):
            snapshots[number] = _snapshot(names[number][1], names[number][0], fields)
    return snapshots


def _snapshot(instance: str, incarnation: str, reply: Reply) -> Snapshot | None:
    if not reply or is_wrong_type(reply):
        return None
    try:
        snapshot = decode_header(instance, raise_error(reply))
    except MessageError:
        return None
    return snapshot if snapshot.incarnation == incarnation else None
