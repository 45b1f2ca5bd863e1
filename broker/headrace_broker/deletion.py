"""Deletion: what clients ask for, and what the sweeper does to ended instances (ADR 6).

First `forget`: from then on the instance is unknown and its id free. Then `free`: the memory of what its incarnation
keyed. Both work while the server is out of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Final, NamedTuple, cast

from . import messages, scripting
from .connection import Command
from .conversations import Conversation, ask
from .errors import Fenced, InstanceNotEnded
from .ids import check_instance_id, new_request_id
from .instances import unknown
from .keys import PartitionKeys, RetainedClass
from .messages import DeleteMessage
from .namespace import Namespace
from .requests import ANSWER_MS

SCRIPT_LIMIT: Final = 64
"""Instances that one script deletes: about half a millisecond of the server's time."""


@dataclass(frozen=True)
class DeleteRequest:
    """The wish that an ended instance be deleted: the newest use of the id, or the one of that incarnation.

    Raises `InvalidInstanceId` when made.
    """

    instance: str
    incarnation: str | None = None
    traceparent: str = ""
    request: str = field(default_factory=new_request_id)

    def __post_init__(self) -> None:
        check_instance_id(self.instance)

    def hold(self, namespace: Namespace) -> Conversation[str]:
        """The incarnation that is deleted. Raises `InstanceNotFound`, `InstanceNotEnded`, `ServerError`."""
        keys = namespace.of(self.instance)
        header, incarnation = keys.header(self.instance), self.incarnation or ""
        message = DeleteMessage(self.instance, self.request, self.traceparent)
        answer, detail = yield from scripting.call(
            scripting.load("delete"),
            [
                *(header, keys.events, keys.request(self.request)),
                keys.archive(incarnation) if incarnation else header,
            ],
            [
                *(messages.pack(message), ANSWER_MS, incarnation, self.instance),
                *(keys.retained("completed", ""), keys.retained("failed", "")),
            ],
        )
        match answer:
            case b"sent":
                return cast(bytes, detail).decode()
            case b"live":
                status = cast(bytes, detail).decode()
                raise InstanceNotEnded(
                    f"Instance {self.instance!r} is {status}; only what has ended can be deleted. Cancel it first: "
                    f"headrace cancel {quote(self.instance)}, or headrace delete --force {quote(self.instance)}",
                    instance=self.instance,
                    status=status,
                )
            case _:
                raise unknown(self.instance)


class Forgotten(NamedTuple):
    """How many instances were deleted, and how many had not ended after all."""

    deleted: int
    live: int


def forget(
    keys: PartitionKeys, token: str, kind: RetainedClass, flow: str, members: Sequence[bytes]
) -> Conversation[Forgotten]:
    """Deletes instances out of one index of what is retained. Raises `Fenced` unless `token` is the owner's."""
    deleted = live = 0
    for start in range(0, len(members), SCRIPT_LIMIT):
        reply = yield from scripting.call(
            scripting.load("forget"),
            [keys.meta, keys.purge, keys.counted, keys.by_flow(flow), keys.retained(kind, flow)],
            [
                *(token, keys.header(""), keys.archive(""), keys.by_status("")),
                *members[start : start + SCRIPT_LIMIT],
            ],
        )
        if reply is None:
            raise Fenced("Another orchestrator owns the partition: nothing is deleted.", partition=keys.number)
        deleted, live = deleted + reply[0], live + reply[1]
    return Forgotten(deleted, live)


def free(keys: PartitionKeys, incarnations: int, large_values: int) -> Conversation[bool]:
    """Frees the memory of deleted incarnations, at most so many, and about so many large values; whether any is left.

    Needs no fence: what is in `purge` has no header, and never gets one again.
    """
    (found,) = yield from ask(("SRANDMEMBER", keys.purge, incarnations + 1))
    names = [name.decode() for name in cast("list[bytes]", found)]
    if not names:
        return False
    batch = names[:incarnations]
    commands: list[Command] = []
    for name in batch:
        commands.append(("UNLINK", keys.state(name), keys.outputs(name), keys.history(name), keys.parked(name)))
        commands.append(("SCARD", keys.large(name)))
    counts = (yield from ask(*commands))[1::2]
    holding = [name for name, count in zip(batch, counts, strict=True) if count]
    if holding:
        yield from _free_values(keys, holding, large_values)
    done = [name for name, count in zip(batch, counts, strict=True) if not count]
    if done:
        yield from ask(("SREM", keys.purge, *done))
    return len(names) > len(done)


def _free_values(keys: PartitionKeys, incarnations: Sequence[str], limit: int) -> Conversation[None]:
    """Some large values, of one incarnation after the other until the limit is reached."""
    for name in incarnations:
        (values,) = yield from ask(("SRANDMEMBER", keys.large(name), limit))
        if not values:
            continue
        # The values first: a name that is left over by a kill is deleted again, a value without its name never.
        yield from ask(("UNLINK", *values), ("SREM", keys.large(name), *values))
        limit -= len(values)
        if limit <= 0:
            return
