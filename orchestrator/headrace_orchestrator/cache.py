"""What a partition's owner keeps in memory: recently used instances, small values, and programs. All of it can be lost.

Bounded (invariant 10), dropped at every reconnect, and changed only after a commit succeeded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from headrace_broker.values import Value

from .engine.model import Instance

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The `limit` entries used last."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: K, value: V) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def remove(self, key: K) -> None:
        self._entries.pop(key, None)

    def __len__(self) -> int:
        return len(self._entries)


class Values:
    """Values by (incarnation, slot), up to a number of bytes; larger single ones are not kept."""

    LARGEST = 16 * 1024

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._values: OrderedDict[tuple[str, str], Value] = OrderedDict()

    def get(self, incarnation: str, slot: str) -> Value | None:
        return self._values.get((incarnation, slot))

    def put(self, incarnation: str, slot: str, value: Value) -> None:
        old = self._values.pop((incarnation, slot), None)
        if old is not None:
            self._bytes -= len(old)
        if len(value) > self.LARGEST:
            return
        self._values[incarnation, slot] = value
        self._bytes += len(value)
        while self._bytes > self._limit:
            _, oldest = self._values.popitem(last=False)
            self._bytes -= len(oldest)


class Caches:
    """Everything one partition's owner remembers."""

    def __init__(self, instances: int, value_bytes: int) -> None:
        self.instances: Recent[str, Instance] = Recent(instances)
        self.values = Values(value_bytes)
