"""A namespace: how many partitions it has, and in which format its keys are. Fixed by whoever opens it first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from . import checks
from .connection import raise_error
from .conversations import Conversation, ask
from .errors import ConfigurationError, PartitionCountMismatch
from .keys import Keys, PartitionKeys, partition_of

FORMAT: Final = 1
"""Raised when keys or their meaning change in a way that an older release would misread."""
DEFAULT_PARTITIONS: Final = 4
MAX_PARTITIONS: Final = 1024


@dataclass(frozen=True)
class Namespace:
    """An opened namespace."""

    keys: Keys
    partitions: int

    @cached_property
    def all_partitions(self) -> tuple[PartitionKeys, ...]:
        return tuple(self.keys.partition(number) for number in range(self.partitions))

    def of(self, instance: str) -> PartitionKeys:
        """The keys of the partition the instance lives in."""
        return self.all_partitions[partition_of(instance, self.partitions)]


def open_namespace(name: str, partitions: int | None = None) -> Conversation[Namespace]:
    """Opens a namespace, and creates it if need be, with `partitions` or 4. An existing one keeps its count.

    Raises `PartitionCountMismatch` if `partitions` is given and the namespace has another count, `ConfigurationError`
    for a bad name or count, or a namespace of a newer format.
    """
    keys = Keys(name)
    if partitions is not None and not 1 <= partitions <= MAX_PARTITIONS:
        raise ConfigurationError(f"A namespace has 1 to {MAX_PARTITIONS} partitions; got {partitions}.")
    facts = ("HMGET", keys.namespace, "partitions", "format")
    (found,) = yield from ask(facts)  # what is there can be opened while the server is out of memory, too
    if None in found:
        *_, found = yield from ask(
            ("HSETNX", keys.namespace, "partitions", partitions or DEFAULT_PARTITIONS),
            ("HSETNX", keys.namespace, "format", FORMAT),
            facts,
        )
    return _opened(keys, found, partitions)


def enter_namespace(name: str) -> Conversation[Namespace]:
    """As `open_namespace`, for clients, which check the server by the way: one exchange if the namespace exists.

    Raises also what `check_as_client` does; nothing was written then.
    """
    keys = Keys(name)
    replies = yield [*checks.QUESTIONS, ("HMGET", keys.namespace, "partitions", "format")]
    fields = raise_error(replies[-1])
    checks.check_as_client(replies)
    if None in fields:
        return (yield from open_namespace(name))
    return _opened(keys, fields)


def _opened(keys: Keys, fields: Sequence[bytes], partitions: int | None = None) -> Namespace:
    found, version = (_count(keys, field) for field in fields)
    if version != FORMAT:
        raise ConfigurationError(
            f"Namespace {keys.ns!r} has format {version}; this release reads format {FORMAT}. "
            "Use the release it was made with, or another namespace."
        )
    if partitions is not None and partitions != found:
        raise PartitionCountMismatch(
            f"Namespace {keys.ns!r} was created with {found} partitions, which cannot change; {partitions} were asked "
            f"for. Leave the count out or say {found}, or use another namespace."
        )
    return Namespace(keys, found)


def _count(keys: Keys, field: bytes) -> int:
    if not field.isdigit() or not 1 <= int(field) <= MAX_PARTITIONS:
        raise ConfigurationError(f"The key {keys.namespace!r} is not what Headrace wrote: it says {field!r}.")
    return int(field)
