"""The fenced commit: one MULTI/EXEC per batch, compare-and-set on the partition's `meta` (DESIGN 5).

`WATCH meta; HMGET meta token commit` rides behind the EXEC before, so the fence costs no round trip. The EXEC goes
through only if nobody has written `meta` since, and it is only sent if what was read is our token and the number
before ours: neither another owner nor a late packet of our own can apply anything.

    meta    token commit epoch now events starts signals repair minted
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .connection import Command, Link, Reply, exchange, raise_error
from .errors import CommitDamaged, Fenced, MessageError, ServerError, ServerFull
from .keys import PartitionKeys

ORIGIN: Final = "0-0"
HIGHEST_ID: Final = 2**63
"""Above this an entry id leaves no room for what follows it, in any stream: only a strange hand writes one."""
_TOKEN: Final = re.compile(rb"[A-Za-z0-9]{0,80}")
_ENTRY: Final = re.compile(rb"[0-9]{1,20}-[0-9]{1,20}")
_NUMBER: Final = re.compile(rb"[0-9]{1,20}")
FIRST_COMMIT: Final = 10**15
"""Commit numbers are ids in task streams, so they start above any id the server would give by itself (ms since the
epoch): a stray `XADD … *` then cannot make our own ids too small, which would stop the partition for good."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What the last commit left. Cursors are ids of the last entry applied; `now` in ms.

    `repair`: a commit was applied in part, and what it lost has not all been found yet. `minted`: how many dispatches
    the last commit made: entries `<commit>-0` up to that; what a task stream holds beyond is a strange hand's.
    """

    token: str = ""
    commit: int = FIRST_COMMIT
    epoch: int = 0
    now: int = 0
    events: str = ORIGIN
    starts: str = ORIGIN
    signals: str = ORIGIN
    repair: bool = False
    minted: int = 0

    @classmethod
    def parse(cls, reply: Sequence[bytes]) -> Meta:
        """From the reply of HGETALL. Raises `MessageError`, which names the field."""
        fields = {bytes(name): bytes(value) for name, value in zip(reply[::2], reply[1::2], strict=True)}
        read = _Fields(fields)
        return cls(
            read.text("token", _TOKEN, ""),
            read.number("commit", FIRST_COMMIT),
            read.number("epoch", 0),
            read.number("now", 0),
            read.text("events", _ENTRY, ORIGIN),
            read.text("starts", _ENTRY, ORIGIN),
            read.text("signals", _ENTRY, ORIGIN),
            bool(fields.get(b"repair")),
            read.number("minted", 0),
        )


class _Fields:
    """Fields of `meta`, of which a strange hand may have written any."""

    def __init__(self, fields: Mapping[bytes, bytes]) -> None:
        self._fields = fields

    def text(self, name: str, pattern: re.Pattern[bytes], default: str) -> str:
        value = self._fields.get(name.encode())
        if value is None:
            return default
        if not pattern.fullmatch(value):
            raise MessageError(f"The field {name} of a partition's meta cannot be {value[:40]!r}", field=name)
        return value.decode()

    def number(self, name: str, default: int) -> int:
        number = int(self.text(name, _NUMBER, str(default)))
        if number > HIGHEST_ID:
            raise MessageError(f"The field {name} of a partition's meta cannot be {number}", field=name)
        return number


class Commits:
    """The commits of one owner over one connection, in their order."""

    def __init__(self, link: Link, keys: PartitionKeys, token: str, commit: int) -> None:
        """`commit` is the number of the last commit that `meta` holds; `token` is the owner's."""
        self._link = link
        self._meta = keys.meta
        self._token = token
        self._commit = commit
        self._pending = 0

    @property
    def next(self) -> int:
        """The number of the commit that would be sent now."""
        return self._commit + 1

    def watch(self) -> None:
        """Raises `Fenced` unless `meta` is as our last commit left it."""
        self._check(exchange(self._link, self._watch()))

    def _watch(self) -> list[Command]:
        return [("WATCH", self._meta), ("HMGET", self._meta, "token", "commit")]

    def _check(self, replies: Sequence[Reply]) -> None:
        raise_error(replies[0])
        token, commit = raise_error(replies[1])
        if token != self._token.encode() or commit != str(self._commit).encode():
            raise Fenced(f"The partition is at commit {commit!r} of owner {token!r}, not at {self._commit} of ours.")

    def send(self, commands: Sequence[Command], meta: Mapping[str, str | int]) -> None:
        """Sends the next commit; `receive` must follow. Raises `ServerUnreachable`."""
        assert not self._pending, "a commit is in flight"
        fields: list[str | int] = [item for pair in meta.items() for item in pair]
        self._link.send(
            [
                ("MULTI",),
                *commands,
                ("HSET", self._meta, "token", self._token, "commit", self._commit + 1, *fields),
                ("EXEC",),
                *self._watch(),
            ]
        )
        self._pending = len(commands) + 5

    def receive(self) -> None:
        """Returns when the commit is done and the next may be sent.

        Raises `Fenced` when the server refused it (nothing was applied), `ServerFull` when it had no memory for it
        (the same, and another may be sent), `ServerError` when it refused a command before EXEC (nothing was applied)
        or one failed inside it (`CommitDamaged`: it *was* applied but for that command), and `ServerUnreachable` when
        the reply was lost (it may have been applied: reload `meta` over a new connection).
        """
        replies = self._link.receive(self._pending)
        self._pending = 0
        outcome = replies[-3]
        if outcome is None:
            raise Fenced("Somebody wrote the partition's meta: another owner has it.")
        if isinstance(outcome, ServerError):
            refused = next((reply for reply in replies if isinstance(reply, ServerError)), outcome)
            if isinstance(refused, ServerFull):
                self._check(replies[-2:])
                raise ServerFull(f"The commit was refused before it was applied: {refused}")
            raise ServerError(f"The commit was refused before it was applied: {refused}")
        for reply in outcome:
            if isinstance(reply, Exception):
                raise CommitDamaged(f"A command failed inside a commit that was applied: {reply}")
        self._commit += 1
        self._check(replies[-2:])
