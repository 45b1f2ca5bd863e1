"""What an owner-to-be finds in a partition: how far strange entries reach, and keys that are not ours any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from headrace_broker.commit import HIGHEST_ID, ORIGIN
from headrace_broker.connection import Link, Reply, exchange, raise_error
from headrace_broker.errors import ServerError
from headrace_broker.ids import entry_key
from headrace_broker.instances import STATUSES
from headrace_broker.keys import RETAINED_CLASSES, Keys, PartitionKeys


@dataclass(frozen=True, slots=True)
class Condition:
    """`highest` is the highest id in the partition's task streams: commits go on above its first part, or their entries
    would be refused. `damage` says which key cannot be worked with, and what mends it; None if all can."""

    highest: tuple[int, int]
    damage: str | None


def examine(link: Link, keys: Keys, partition: PartitionKeys) -> Condition:
    """Two round trips, whatever the partition holds."""
    queues, flows, *types = exchange(
        link,
        [
            *(("SMEMBERS", keys.queues), ("SMEMBERS", keys.flows)),
            *(("TYPE", key) for key in (keys.queues, keys.flows, keys.workers, keys.signals)),
        ],
    )
    common = {keys.queues: "set", keys.flows: "set", keys.workers: "zset", keys.signals: "stream"}
    if damage := _wrong_type(common, types):
        return Condition((0, 0), damage)
    tasks = [partition.tasks(name) for name in texts(raise_error(queues))]
    streams = [partition.events, partition.starts, *tasks]
    expected = dict.fromkeys((*streams, partition.quarantine), "stream")
    expected |= dict.fromkeys((partition.timers, *map(partition.by_status, STATUSES)), "zset")
    for name in texts(raise_error(flows)):
        expected |= dict.fromkeys((partition.retained(kind, name) for kind in RETAINED_CLASSES), "zset")
    replies = exchange(link, [*(("TYPE", key) for key in expected), *(("XINFO", "STREAM", key) for key in streams)])
    if damage := _wrong_type(expected, replies):
        return Condition((0, 0), damage)
    ends = {key: last_id(reply) for key, reply in zip(streams, replies[len(expected) :], strict=True)}
    for key, end in ends.items():
        if entry_key(end)[0] > HIGHEST_ID:
            return Condition((0, 0), exhausted(key, end))
    return Condition(max((entry_key(ends[key]) for key in tasks), default=(0, 0)), None)


def exhausted(key: str, end: str) -> str:
    """Of a stream with an id that nothing can follow: what is wrong, and what mends it."""
    return _foreign(key, f"ends at the id {end}, and no entry of ours can follow that")


def texts(members: Iterable[bytes]) -> list[str]:
    """The members of a set that are names of ours: what is no text came from a strange hand, and is passed over."""
    found: list[str] = []
    for member in members:
        with suppress(UnicodeDecodeError):
            found.append(member.decode())
    return sorted(found)


def _wrong_type(expected: Mapping[str, str], types: Sequence[Reply]) -> str | None:
    for (key, kind), reply in zip(expected.items(), types, strict=False):
        found = raise_error(reply).decode()
        if found not in (kind, "none"):
            return _foreign(key, f"is of type {found}, not {kind}")
    return None


def _foreign(key: str, harm: str) -> str:
    return (
        f"the key {key} {harm}; somebody else wrote it. This mends it: redis-cli DEL '{key}'. The partition then goes "
        "on by itself, and hands out again what was lost with that key."
    )


def last_id(reply: Reply) -> str:
    """A stream's last id, from the reply of XINFO STREAM; the origin if there is no such stream."""
    if isinstance(reply, ServerError):
        return ORIGIN
    facts = dict(zip(reply[::2], reply[1::2], strict=True))
    return str(facts[b"last-generated-id"].decode())
