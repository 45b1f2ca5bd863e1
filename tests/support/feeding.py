"""An owner's part of the work with task streams, by hand: hands tasks out, reads what comes back."""

from __future__ import annotations

from typing import Any, TypeVar

from headrace_broker import codec, messages, values
from headrace_broker.connection import Server, call
from headrace_broker.errors import ServerError
from headrace_broker.keys import GROUP, Keys, PartitionKeys, partition_of
from headrace_broker.messages import Message, ResultMessage, TaskMessage
from headrace_broker.namespace import Namespace
from support.waiting import wait_until, wait_until_async

M = TypeVar("M", bound=Message)

INCARNATION = "inc"


class Feed:
    """Hands out tasks of one namespace and collects its events."""

    def __init__(self, url: str, namespace: str, partitions: int = 4) -> None:
        self.namespace = Namespace(Keys(namespace), partitions)
        self.link = Server(url).connect()
        self.number = 0
        self.cursors = {keys.number: "0-0" for keys in self.namespace.all_partitions}
        self.events: list[Message] = []

    def message(self, task: str, argument: Any = None, **fields: Any) -> TaskMessage:
        """A task message with the next dispatch id; `fields` replace what is in it."""
        self.number += 1
        instance = str(fields.get("instance", f"i{self.number}"))
        partition = partition_of(instance, self.namespace.partitions)
        made = TaskMessage(
            instance=instance,
            incarnation=INCARNATION,
            run=1,
            flow="flow",
            node=task,
            task=task,
            dispatch=f"{partition}-1ab-{self.number}-0",
            token=1,
            step=1,
            attempt=1,
            max_attempts=1,
            losses=0,
            alone=False,
            timeout_ms=0,
            at=0,
            value=values.inline(codec.encode(argument)),
        )
        return made._replace(**fields)

    def hand_out(self, task: str, argument: Any = None, *, stream: str = "default", **fields: Any) -> TaskMessage:
        message = self.message(task, argument, **fields)
        entry = f"{message.dispatch.split('-')[2]}-0"
        self.add(message.instance, stream, messages.pack(message), entry)
        return message

    def add(self, instance: str, stream: str, raw: bytes, entry: str = "*") -> None:
        call(self.link, "XADD", self.namespace.of(instance).tasks(stream), entry, "m", raw)

    def revoke(self, message: TaskMessage, stream: str = "default", *, publish: bool = True) -> None:
        """As the owner's commit does: out of the pending list, out of the stream, and told."""
        keys, entry = self.namespace.of(message.instance), f"{message.dispatch.split('-')[2]}-0"
        call(self.link, "XACK", keys.tasks(stream), GROUP, entry)
        call(self.link, "XDEL", keys.tasks(stream), entry)
        if publish:
            call(self.link, "PUBLISH", keys.revoked, message.dispatch)

    def read(self) -> list[Message]:
        """Every event so far, partition by partition in order."""
        for keys in self.namespace.all_partitions:
            for entry, fields in call(self.link, "XRANGE", keys.events, f"({self.cursors[keys.number]}", "+"):
                self.cursors[keys.number] = entry.decode()
                self.events.append(messages.unpack(dict(zip(fields[::2], fields[1::2], strict=True))[b"m"]))
        return self.events

    def of(self, kind: type[M]) -> list[M]:
        return [event for event in self.read() if isinstance(event, kind)]

    def results(self) -> dict[str, ResultMessage]:
        """The first result of each dispatch, which is the one that counts."""
        found: dict[str, ResultMessage] = {}
        for event in self.of(ResultMessage):
            found.setdefault(event.dispatch, event)
        return found

    def result(self, message: TaskMessage, timeout: float = 10.0) -> ResultMessage:
        """Waits for the first result of a dispatch."""
        found = wait_until(lambda: self.results().get(message.dispatch), timeout, f"a result of {message.task}")
        assert found is not None
        return found

    async def result_async(self, message: TaskMessage, timeout: float = 10.0) -> ResultMessage:
        """Waits for the first result of a dispatch, while the event loop runs on."""
        found = await wait_until_async(
            lambda: self.results().get(message.dispatch), timeout, f"a result of {message.task}"
        )
        assert found is not None
        return found

    def pending(self, stream: str = "default") -> int:
        """Deliveries of a stream that are leased, in all partitions."""
        return sum(len(self.leases(keys, stream)) for keys in self.namespace.all_partitions)

    def leases(self, keys: PartitionKeys, stream: str = "default") -> list[Any]:
        """[entry, consumer, idle ms, deliveries] of each."""
        try:
            return list(call(self.link, "XPENDING", keys.tasks(stream), GROUP, "-", "+", 1000))
        except ServerError:  # no worker has subscribed yet
            return []

    def left(self, stream: str = "default") -> int:
        """Entries of a stream, in all partitions."""
        return sum(call(self.link, "XLEN", keys.tasks(stream)) for keys in self.namespace.all_partitions)

    def settled(self, stream: str = "default") -> bool:
        return self.left(stream) == 0 and self.pending(stream) == 0

    def close(self) -> None:
        self.link.close()
