"""What an owner-to-be finds in a partition: how far strange entries reach, and keys that are not ours any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headrace_broker.commit import ORIGIN
from headrace_broker.connection import Link, Reply, exchange, raise_error
from headrace_broker.errors import ServerError
from headrace_broker.instances import STATUSES
from headrace_broker.keys import RETAINED_CLASSES, Keys, PartitionKeys

from .inbox import entry_key

HIGHEST_ID: Final = 2**63
"""Above this a stream's last id leaves no room for the commits of a partition's life."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`highest` is the highest id in the partition's task streams, in ms: commits go on above it, or their entries
    would be refused. `damage` says which key cannot be worked with, and what mends it; None if all can."""

    highest: int
    damage: str | None


def examine(link: Link, keys: Keys, partition: PartitionKeys) -> Condition:
    """Two round trips, whatever the partition holds."""
    queues, flows = exchange(link, [("SMEMBERS", keys.queues), ("SMEMBERS", keys.flows)])
    names = sorted(name.decode() for name in raise_error(queues))
    tasks = [partition.tasks(name) for name in names]
    expected = dict.fromkeys((partition.events, partition.starts, partition.quarantine, *tasks), "stream")
    expected |= dict.fromkeys((partition.timers, *map(partition.by_status, STATUSES)), "zset")
    for name in raise_error(flows):
        expected |= dict.fromkeys((partition.retained(kind, name.decode()) for kind in RETAINED_CLASSES), "zset")
    replies = exchange(link, [*(("TYPE", key) for key in expected), *(("XINFO", "STREAM", key) for key in tasks)])
    for key, reply in zip(expected, replies[: len(expected)], strict=True):
        found = raise_error(reply).decode()
        if found not in (expected[key], "none"):
            return Condition(0, _foreign(key, f"is of type {found}, not {expected[key]}"))
    ends = {key: last_id(reply) for key, reply in zip(tasks, replies[len(expected) :], strict=True)}
    for key, end in ends.items():
        if entry_key(end)[0] > HIGHEST_ID:
            return Condition(0, _foreign(key, f"ends at the id {end}, and no entry of ours can follow that"))
    return Condition(max((entry_key(end)[0] for end in ends.values()), default=0), None)


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
