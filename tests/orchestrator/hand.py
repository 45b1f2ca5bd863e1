"""A worker in a test's hand: it reads task streams and answers what, and when, the test says.

It speaks only what crosses Redis (task streams, `events`), as a child does: result, acknowledgement and deletion are
one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace_broker import codec, messages, payloads, tasks, values
from headrace_broker.connection import Connector, call, exchange
from headrace_broker.conversations import converse
from headrace_broker.ids import new_request_id
from headrace_broker.keys import GROUP
from headrace_broker.messages import Failure, Outcome, ResultMessage, StartedMessage, TaskMessage
from headrace_broker.namespace import Namespace
from headrace_broker.tasks import VALUE_LIFE_MS, Settlement, Source
from headrace_broker.values import Value


@dataclass(frozen=True)
class Held:
    """One delivery in hand."""

    source: Source
    entry: str
    task: TaskMessage

    @property
    def node(self) -> str:
        return self.task.node


class Hand:
    """One consumer of the given task streams, in all partitions."""

    def __init__(
        self, connector: Connector, namespace: Namespace, name: str = "hand", streams: tuple[str, ...] = ("default",)
    ) -> None:
        self.name = name
        self._link = connector.connect()
        self.sources = tasks.sources(namespace.all_partitions, streams)
        self._by_key = {source.key.encode(): source for source in self.sources}
        converse(self._link, tasks.ensure_groups(namespace.keys, self.sources))
        self.taken: list[Held] = []
        """Every delivery it ever got, in order."""

    def take(self, count: int = 64) -> list[Held]:
        """What is there to do now; from now on this worker holds it."""
        (reply,) = exchange(self._link, [tasks.read(self.name, self.sources, count)])
        found: list[Held] = []
        for delivery in tasks.parse(reply, self._by_key):
            assert delivery.raw is not None, f"no message in {delivery}"
            task = messages.expect(messages.unpack(delivery.raw), TaskMessage)
            found.append(Held(delivery.source, delivery.entry, task))
        self.taken += found
        return found

    def take_raw(self) -> list[str]:
        """Like `take` for what may be no task at all: entry ids only."""
        (reply,) = exchange(self._link, [tasks.read(self.name, self.sources, 64)])
        return [delivery.entry for delivery in tasks.parse(reply, self._by_key)]

    def answer(self, held: Held, outcome: Outcome = "completed", result: Any = None, **control: Any) -> None:
        """Settles one delivery with a result; `result` above 16 KiB goes by reference, as a child does it."""
        stored = payloads.Stored(b"", None)
        if outcome == "completed":
            prefix = held.source.partition.values(held.task.incarnation)
            stored = payloads.store(codec.encode(result), lambda: prefix + new_request_id())
        self.settle(held, self.result(held, outcome, stored.value, **control), stored.write)

    def result(
        self,
        held: Held,
        outcome: Outcome = "completed",
        value: Value | None = None,
        failure: Failure | None = None,
        route: str | None = None,
    ) -> ResultMessage:
        task = held.task
        if outcome != "completed":
            value = None
        return ResultMessage(
            *(task.instance, task.incarnation, task.dispatch, task.token, outcome, value, failure, route),
            worker=self.name,
        )

    def settle(self, held: Held, message: ResultMessage, write: tuple[str, bytes] | None = None) -> None:
        settlement = Settlement(messages.pack(message), held.source, held.entry, write)
        tasks.check_settled(exchange(self._link, tasks.settle(held.source.partition, [settlement])))

    def fail(self, held: Held, *, may_retry: bool | None = None, retry_after_ms: int | None = None) -> None:
        failure = Failure("ValueError", "it broke", "", may_retry, retry_after_ms)
        self.settle(held, self.result(held, "failed", failure=failure))

    def report_start(self, held: Held, began_ms: int) -> None:
        """What a child sends for an attempt with a time-out."""
        task = held.task
        message = StartedMessage(task.instance, task.incarnation, task.dispatch, task.token, began_ms, self.name)
        call(self._link, "XADD", held.source.partition.events, "*", messages.FIELD, messages.pack(message))

    def tell(self, held: Held, message: ResultMessage) -> str:
        """A result that comes without acknowledgement: a worker that lost its lease. The entry's id."""
        reply: bytes = call(
            self._link, "XADD", held.source.partition.events, "*", messages.FIELD, messages.pack(message)
        )
        return reply.decode()

    def write_value(self, held: Held, payload: bytes) -> Value:
        """A large value as a worker leaves it, with its hour of life; nothing refers to it yet."""
        key = held.source.partition.value(held.task.incarnation, new_request_id())
        call(self._link, "SET", key, payload, "PX", VALUE_LIFE_MS)
        return values.reference(key, len(payload))

    def go_idle(self, held: Held | None = None, *, source: Source | None = None, entry: str = "") -> None:
        """Makes the lease of an entry an hour old, as if nobody had renewed it."""
        source = held.source if held is not None else source
        entry = held.entry if held is not None else entry
        assert source is not None
        call(self._link, "XCLAIM", source.key, GROUP, self.name, 0, entry, "IDLE", 3_600_000, "JUSTID")

    def holds(self, held: Held) -> bool:
        """Whether the entry is still leased to this worker. Renews nothing."""
        return bool(call(self._link, "XPENDING", held.source.key, GROUP, held.entry, held.entry, 1, self.name))

    def work(self, results: Mapping[str, Any] | None = None, **control: Any) -> int:
        """Takes what there is and completes it: by node, the value that `results` names, else the node's name."""
        found = self.take()
        for held in found:
            self.answer(held, result=(results or {}).get(held.node, held.node), **control)
        return len(found)

    def close(self) -> None:
        self._link.close()
