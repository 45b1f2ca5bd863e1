"""Who owns a partition: a key with a life, and a token in `meta` that fences every commit (DESIGN 5).

The key only says who may try; the token decides. A new token is written at each acquisition, and an orchestrator that
lost its connection acquires anew, so commit numbers never repeat under one token even if the server was promoted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from headrace_broker.commit import Meta
from headrace_broker.connection import Link, call
from headrace_broker.errors import Fenced, MessageError, PartitionDamaged
from headrace_broker.keys import PartitionKeys

from .condition import Condition

# Scripts, because a server that is out of memory refuses SET, and everything in MULTI. It lets a script through that
# began with a write which needs no memory (ADR 6): here the deletion of a key that never exists.
_TAKE = "redis.call('DEL', KEYS[2]) return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])"
_CLAIM = """
local found = redis.call('HMGET', KEYS[1], 'token', 'commit')
if (found[1] or '') ~= ARGV[1] or (found[2] or '') ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Ownership:
    """The ownership of one partition. All times in seconds of the injected monotonic clock."""

    def __init__(
        self, keys: PartitionKeys, lease_ms: int, monotonic: Callable[[], float], bits: Callable[[], str]
    ) -> None:
        """`bits` gives 64 random bits in hex."""
        self._keys = keys
        self._lease_ms = lease_ms
        self._monotonic = monotonic
        self._bits = bits
        self._secret = bits()
        self._trusted_until = 0.0

    def acquire(self, link: Link, examine: Callable[[Link], Condition], *, damaged: bool = False) -> Meta | None:
        """The partition's meta under our new token; None while somebody else holds it.

        The key may still be ours from before a connection was lost; the token is new all the same. Commits go on above
        what `examine` finds in the task streams. If that is above the last commit, or a key is damaged, or `damaged`
        says that a commit was, `meta` is marked for repair in the same transaction. Raises `PartitionDamaged`
        while a key cannot be worked with; the mark is set then, unless it is `meta` itself.
        """
        began = self._monotonic()
        never = self._keys.request("")
        if call(link, "EVAL", _TAKE, 2, self._keys.owner, never, self._secret, self._lease_ms) is None:
            if call(link, "GET", self._keys.owner) != self._secret.encode():
                call(link, "PEXPIRE", self._keys.owner, self._lease_ms, "NX")  # an owner's key always runs out
                return None
            call(link, "PEXPIRE", self._keys.owner, self._lease_ms)
        condition = examine(link)
        found = cast("list[bytes]", call(link, "HGETALL", self._keys.meta))
        try:
            meta = Meta.parse(found)
        except MessageError as error:
            self.release(link)
            raise PartitionDamaged(
                f"{error}; somebody else wrote it. This mends it: "
                f"redis-cli HDEL '{self._keys.meta}' {error.ids['field']}. The partition then goes on by itself."
            ) from None
        before = dict(zip(found[::2], found[1::2], strict=True))
        epoch = meta.epoch + 1
        token = f"{epoch:x}{self._bits()}"
        strange = condition.highest >= (meta.commit, meta.minted)
        commit, minted = (condition.highest[0], condition.highest[1] + 1) if strange else (meta.commit, meta.minted)
        repair = meta.repair or damaged or strange or condition.damage is not None
        fields = ("token", token, "epoch", epoch, "commit", commit, "minted", minted, "repair", "1" if repair else "")
        as_read = (before.get(b"token", b""), before.get(b"commit", b""))
        if not call(link, "EVAL", _CLAIM, 2, self._keys.meta, never, *as_read, *fields):
            self.release(link)
            return None
        if condition.damage is not None:
            self.release(link)
            raise PartitionDamaged(f"Partition {self._keys.number}: {condition.damage}")
        self._trusted_until = began + self._lease_ms / 1000
        return replace(meta, token=token, commit=commit, epoch=epoch, repair=repair, minted=minted)

    @property
    def renewal_due(self) -> float:
        """When to renew: a third into the lease."""
        return self._trusted_until - self._lease_ms / 1000 * 2 / 3

    def renew(self, link: Link) -> None:
        """By PEXPIRE, which works while the server is out of memory. Raises `Fenced` when the key is not ours."""
        began = self._monotonic()
        if call(link, "GET", self._keys.owner) != self._secret.encode():
            raise Fenced("The partition's ownership ran out, or another orchestrator took it.")
        call(link, "PEXPIRE", self._keys.owner, self._lease_ms)
        self._trusted_until = began + self._lease_ms / 1000

    def release(self, link: Link) -> None:
        """Gives the partition up at once, if it is still ours."""
        self._trusted_until = 0.0
        call(link, "EVAL", _RELEASE, 1, self._keys.owner, self._secret)
