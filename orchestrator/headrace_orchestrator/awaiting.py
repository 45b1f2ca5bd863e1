"""Instances that are blocked for want of their definition go on by themselves once it can be loaded (DESIGN 6)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, cast

from headrace_broker import messages
from headrace_broker.connection import Command, Reply
from headrace_broker.conversations import Conversation, ask
from headrace_broker.definitions import Definition
from headrace_broker.errors import MessageError, ServerError
from headrace_broker.instances import parse_missing_member
from headrace_broker.keys import Keys
from headrace_broker.messages import FIELD, INCARNATION_FIELD, UnblockMessage

from .engine.nodes import KINDS
from .engine.program import Program

AT_ONCE: Final = 512
"""Blocked instances of a partition that are looked at in one turn."""
ACTOR: Final = "definition stored"
"""Who unblocks, in the history."""

log = logging.getLogger(__name__)


class _Blocked(NamedTuple):
    partition: int
    member: bytes
    definition: str
    incarnation: str
    instance: str


class Awaiting:
    """Looks at the owned partitions' `missing` in turns, so that definitions which never come hold up no other."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._after: dict[int, bytes] = {}

    def look(self, owned: Sequence[int]) -> Conversation[None]:
        """Sends an unblock to each instance whose definition can be loaded now."""
        replies = yield [
            ("ZRANGEBYLEX", self._keys.partition(n).missing, self._after.get(n, b"-"), "+", "LIMIT", 0, AT_ONCE)
            for n in owned
        ]
        blocked: list[_Blocked] = []
        for number, reply in zip(owned, replies, strict=True):
            if isinstance(reply, ServerError):
                log.warning("Partition %d: who waits for a definition is not known: %s", number, reply)
                continue
            members = cast("list[bytes]", reply)
            blocked += self._parsed(number, members)
            self._after.pop(number, None)
            if len(members) == AT_ONCE:
                self._after[number] = b"(" + members[-1]
        if blocked:
            ready = yield from self._ready({one.definition for one in blocked})
            yield from self._unblock([one for one in blocked if one.definition in ready])

    def _parsed(self, number: int, members: Iterable[bytes]) -> list[_Blocked]:
        found: list[_Blocked] = []
        for member in members:
            try:
                found.append(_Blocked(number, member, *parse_missing_member(member)))
            except MessageError as error:
                log.warning("Partition %d: in its set of missing definitions: %s", number, error)
        return found

    def _ready(self, digests: Iterable[str]) -> Conversation[set[str]]:
        names = sorted(digests)
        replies = yield [("GET", self._keys.definition(digest)) for digest in names]
        return {digest for digest, reply in zip(names, replies, strict=True) if _loads(reply)}

    def _unblock(self, ready: Sequence[_Blocked]) -> Conversation[None]:
        if not ready:
            return
        headers = yield from ask(
            *(("HMGET", self._keys.partition(one.partition).header(one.instance), "inc", "status") for one in ready)
        )
        commands: list[Command] = []
        for one, (incarnation, status) in zip(ready, headers, strict=True):
            keys = self._keys.partition(one.partition)
            if incarnation != one.incarnation.encode() or status != b"blocked":
                commands.append(("ZREM", keys.missing, one.member))
                continue
            message = messages.pack(UnblockMessage(one.instance, actor=ACTOR))
            commands.append(("XADD", keys.events, "*", FIELD, message, INCARNATION_FIELD, one.incarnation))
        yield from ask(*commands)


def _loads(reply: Reply) -> bool:
    if reply is None or isinstance(reply, ServerError):
        return False
    try:
        Program.load(Definition.from_wire(cast(bytes, reply)), KINDS)
    except MessageError:
        return False
    return True
