"""Definitions: compiled flows, named by their content hash. Written by clients and workers, read by the orchestrator.

A definition is a graph of nodes. Each has a kind, a name unique in the flow, the index of the node after it (None:
the end of its scope) and parameters that only its kind understands. On the wire: MessagePack
`[version, flow, first, [[kind, name, next, params], …]]`.

| kind | params |
| --- | --- |
| task | `call` |
| delay | `ms` |
| signal | `signal`, `timeout_ms` (0: none), `on_timeout` (node or None), `default` (value or None), `keep_input` |
| fork | `branches` [[name, first], …], `shape` (what the join gets: `args` or `dict`) |
| route | `call`, `branches` {key: first}, `default` (node index or None) |

Branches of a route and the `on_timeout` of a signal end at the node after it, so they need no frame; branches of a fork
end their scope, which completes the fork's frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import Any, Final, cast

from . import wire
from .errors import MessageError
from .keys import Isolation, stream_of

VERSION: Final = 1
MAX_WIDTH: Final = 256
"""Tokens a flow may hold at once in one instance, so that a decision stays within 512 commands (invariant 6)."""


@dataclass(frozen=True, slots=True)
class RetrySpec:
    """When a failed attempt is tried again: attempts = max_retries + 1; the delay before retry k is
    `initial_ms * backoff**(k-1)`, at most `max_ms`, then varied by ± `jitter` (a fraction) of itself (DESIGN 7)."""

    max_retries: int = 0
    initial_ms: int = 1000
    backoff: float = 2.0
    max_ms: int = 3_600_000
    jitter: float = 0.0

    def to_wire(self) -> list[Any]:
        return [self.max_retries, self.initial_ms, float(self.backoff), self.max_ms, float(self.jitter)]

    @classmethod
    def from_wire(cls, fields: Sequence[Any]) -> RetrySpec:
        """Raises `MessageError`."""
        max_retries, initial_ms, backoff, max_ms, jitter, *_ = wire.fields(
            fields, "a retry policy of 5 numbers", int, int, float, int, float
        )
        if min(max_retries, initial_ms, max_ms) < 0 or not (0 <= backoff < inf and 0 <= jitter < inf):
            raise MessageError(f"Not a retry policy: {wire.shown(fields)}.")
        return cls(max_retries, initial_ms, backoff, max_ms, jitter)


@dataclass(frozen=True)
class TaskCall:
    """How a node calls a task: its registered name, where it runs, its time-out per attempt (0: none)."""

    task: str
    queue: str = "default"
    isolation: Isolation = "thread"
    timeout_ms: int = 0
    retry: RetrySpec = field(default_factory=RetrySpec)

    @cached_property
    def stream(self) -> str:
        """The name of the task stream it is handed out in."""
        return stream_of(self.queue, self.isolation)

    def to_wire(self) -> list[Any]:
        return [self.task, self.queue, self.isolation, self.timeout_ms, self.retry.to_wire()]

    @classmethod
    def from_wire(cls, fields: Sequence[Any]) -> TaskCall:
        """Raises `MessageError`."""
        task, queue, isolation, timeout_ms, retry, *_ = wire.fields(
            fields, "a call [task, queue, isolation, timeout, retry policy]", str, str, str, int, list
        )
        if not (task and queue and ":" not in queue and isolation in ("thread", "process") and timeout_ms >= 0):
            raise MessageError(f"Not a call: {wire.shown(fields)}.")
        return cls(task, queue, isolation, timeout_ms, RetrySpec.from_wire(retry))


@dataclass(frozen=True, slots=True)
class Node:
    """One node: `kind` and `params` as in this module's table; `next` is an index, None at the end of a scope."""

    kind: str
    name: str
    next: int | None
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Definition:
    """A compiled flow. Equal content has an equal hash, whoever compiled it."""

    flow: str
    nodes: tuple[Node, ...]
    first: int = 0

    @cached_property
    def wire(self) -> bytes:
        nodes = [[node.kind, node.name, node.next, _sorted(node.params)] for node in self.nodes]
        return wire.pack([VERSION, self.flow, self.first, nodes])

    @cached_property
    def digest(self) -> str:
        """The content hash: 128 bits of SHA-256 over the wire form, in hex."""
        return hashlib.sha256(self.wire).hexdigest()[:32]

    @classmethod
    def from_wire(cls, data: bytes) -> Definition:
        """Raises `MessageError` for bytes that are no definition this version can read."""
        version, flow, first, rows, *_ = wire.fields(
            wire.unpack(data, any_key=True), "a definition [version, flow, first, nodes]", int, str, int, list
        )
        wire.version(version, VERSION, "A definition")
        nodes = [wire.fields(row, "a node [kind, name, next, params]", str, str, object, dict) for row in rows]
        definition = cls(flow, tuple(Node(*node[:4]) for node in nodes), first)
        definition._check()
        return definition

    def _check(self) -> None:
        count = len(self.nodes)
        for place in (self.first, *(node.next for node in self.nodes if node.next is not None)):
            if not (type(place) is int and 0 <= place < count):
                raise MessageError(f"Not a definition: it points at node {wire.shown(place)} of {count}.")
        self.calls()

    @cached_property
    def signals(self) -> frozenset[str]:
        """The names of all signals that a step of it waits for."""
        return frozenset(str(node.params.get("signal")) for node in self.nodes if node.kind == "signal")

    def calls(self) -> list[TaskCall]:
        """Every task call in it, in node order."""
        return [TaskCall.from_wire(node.params["call"]) for node in self.nodes if "call" in node.params]


def _sorted(value: Any) -> Any:
    """Maps in key order, so that equal content has equal bytes."""
    if isinstance(value, Mapping):
        items: dict[Any, Any] = dict(cast(Any, value))
        return {key: _sorted(items[key]) for key in sorted(items, key=lambda key: (type(key).__name__, key))}
    if isinstance(value, (list, tuple)):
        return [_sorted(item) for item in cast(Any, value)]
    return value
