"""After a commit that was applied in part: finds what it lost, and hands that out again.

EXEC does not roll back (DESIGN 5). A strange hand can make one of its commands fail: by an entry in a task stream with
an id above ours, or by a key of another type. The state then says that a task was handed out, or a timer set, which
is not there. `meta` bears the mark `repair` from before anything else is done until all is found, so a repair
outlives its owner. A task counts as lost if its token holds a dispatch id that its stream does not have, and no
event of that dispatch is in the inbox; the last is seen to by reading the whole inbox before the losses are applied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, cast

from headrace_broker import messages
from headrace_broker.connection import Argument, Command, Link, call, exchange, raise_error
from headrace_broker.errors import MessageError
from headrace_broker.ids import entry_of
from headrace_broker.instances import timer_member
from headrace_broker.keys import Keys, PartitionKeys
from headrace_broker.messages import ResultMessage
from headrace_broker.records import Token

from .condition import texts
from .engine.model import Instance
from .inbox import Item
from .loader import Programs, load_instances

_AT_ONCE: Final = 64
"""Instances that one turn looks at."""

_STATUSES: Final = ("running", "waiting", "blocked", "cancelling", "running")
"""Where tokens with dispatches and timers may be; `running` again, for what came back to it while we looked."""

_NO_TOKEN: Final = Token(0, 0, 0, "", 0, 0, "0-0-0-0")

WORKER: Final = "repair"
"""Who hands the lost deliveries back, for the history."""


class Repair:
    """One partition's, a slice a turn. Raises as the link does."""

    def __init__(self, keys: Keys, partition: PartitionKeys, programs: Programs) -> None:
        self._queues = keys.queues
        self._keys = partition
        self._programs = programs
        self._statuses = deque(_STATUSES)
        self._cursor = b"0"
        self._lost: list[Item] = []

    @property
    def done(self) -> bool:
        """Whether everything was looked at and taken."""
        return not self._statuses and not self._lost

    def search(self, link: Link) -> None:
        """Looks at the next instances."""
        if not self._statuses or self._lost:
            return
        key = self._keys.by_status(self._statuses[0])
        self._cursor, rows = call(link, "ZSCAN", key, self._cursor, "COUNT", _AT_ONCE)
        if self._cursor == b"0":
            self._statuses.popleft()
        ids = [member.partition(" ")[2] for member in texts(cast("list[bytes]", rows)[::2])]
        found = load_instances(link, self._keys, ids).values()
        instances = [instance for instance in found if not isinstance(instance, MessageError)]
        self._programs.load(link, [instance.definition for instance in instances])
        self._set_timers(link, instances)
        self._lost = self._find_lost(link, instances)
        self._lost += [_look(instance) for instance in instances if instance.damage is not None]

    def take(self) -> list[Item]:
        """The losses found. To be applied after all that was in the inbox when they were searched."""
        lost, self._lost = self._lost, []
        return lost

    def _set_timers(self, link: Link, instances: list[Instance]) -> None:
        """All that tokens hold: those that are there stay as they are."""
        timers: list[Argument] = []
        for instance in instances:
            for id, token in _tokens(instance):
                if token.timer:
                    timers += (token.due, timer_member(instance.incarnation, id, token.timer, instance.id))
        if timers:
            call(link, "ZADD", self._keys.timers, *timers)

    def _find_lost(self, link: Link, instances: list[Instance]) -> list[Item]:
        held = [(instance, id, token) for instance in instances for id, token in _tokens(instance) if token.dispatch]
        if not held:
            return []
        all_streams = texts(call(link, "SMEMBERS", self._queues))
        asked: list[Command] = []
        counts: list[int] = []
        for instance, _, token in held:
            streams = self._streams(instance, token, all_streams)
            entry = entry_of(token.dispatch)
            asked += [("XRANGE", self._keys.tasks(stream), entry, entry) for stream in streams]
            counts.append(len(streams))
        replies = iter(exchange(link, asked))
        lost: list[Item] = []
        for (instance, id, token), count in zip(held, counts, strict=True):
            found = [raise_error(next(replies)) for _ in range(count)]
            if not any(found):
                lost.append(_handed_back(instance, id, token))
        return lost

    def _streams(self, instance: Instance, token: Token, all_streams: list[str]) -> list[str]:
        """The stream of the token's task; any, if its definition is missing or the token does not fit it."""
        program = self._programs.get(instance.definition)
        stream = None if program is None else program.stream(token.node)
        return all_streams if stream is None else [stream]


def _tokens(instance: Instance) -> Iterator[tuple[int, Token]]:
    for name, record in instance.state.items():
        if isinstance(record, Token):
            yield int(name[1:]), record


def _look(instance: Instance) -> Item:
    """Something for an instance whose state cannot be read: it blocks it, for nobody knows what it has lost."""
    return _handed_back(instance, 0, _NO_TOKEN)


def _handed_back(instance: Instance, id: int, token: Token) -> Item:
    event = ResultMessage(instance.id, instance.incarnation, token.dispatch, id, "returned", worker=WORKER)
    raw = {messages.FIELD: messages.pack(event)}
    return Item("repair", "", instance.id, instance.incarnation, event, raw=raw)
