"""A keeper whose children are scripted and whose time is set."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from headrace_broker import tasks
from headrace_broker.connection import Server, call
from headrace_broker.conversations import converse
from headrace_broker.errors import ServerUnreachable
from headrace_broker.keys import GROUP
from headrace_broker.messages import TaskMessage
from headrace_workers.keeper import Keeper, KeeperSettings
from headrace_workers.pipe import Frame, Held, Ready, Report
from support.feeding import Feed

READY = Ready(["default"], ["double"], ["default:process"], ["heavy"])


class FakeChild:
    def __init__(self, consumer: str, pid: int) -> None:
        self.consumer = consumer
        self.pid = pid
        self.status: int | None = None
        self.says: list[Frame] = [READY]
        self.told: list[Frame] = []
        self.wrote: list[str] = []
        self.closed = False

    def poll(self) -> int | None:
        return self.status

    def receive(self) -> list[Frame]:
        said, self.says = self.says, []
        return said

    def send(self, frame: Frame) -> None:
        self.told.append(frame)

    def kill(self) -> None:
        self.status = -9

    def last_lines(self) -> list[str]:
        return self.wrote

    def close(self) -> None:
        self.closed = True

    def fileno(self) -> int:
        return -1


class World:
    """A keeper with its clock and its children."""

    def __init__(self, feed: Feed, url: str) -> None:
        self.feed = feed
        self.now = 1000.0
        self.children: list[FakeChild] = []
        self.first_words: Callable[[], list[Frame]] = lambda: [READY]
        self.server = Server(url)
        self.reachable = True
        self.keeper = self.make()

    def make(self, **settings: Any) -> Keeper:
        chosen = KeeperSettings("keeper", "host", 7, **settings)
        self.keeper = Keeper(chosen, self.feed.namespace, self, self, monotonic=lambda: self.now, random=Random(1))
        return self.keeper

    @property
    def url(self) -> str:
        return self.server.url

    def connect(self, *, timeout: float = 5.0) -> Any:
        if not self.reachable:
            raise ServerUnreachable("It is away.")
        return self.server.connect(timeout=timeout)

    async def connect_async(self, *, timeout: float = 5.0) -> Any:
        raise NotImplementedError

    async def subscription(self) -> Any:
        raise NotImplementedError

    def spawn(self, consumer: str) -> FakeChild:
        child = FakeChild(consumer, len(self.children) + 1)
        child.says = self.first_words()
        self.children.append(child)
        return child

    def step(self, seconds: float = 0.0) -> float:
        self.now += seconds
        return self.keeper.step()

    def run(self) -> FakeChild:
        """Steps until a child is ready."""
        self.step()
        self.step()
        return self.children[-1]

    def deliver(self, child: FakeChild, *messages: TaskMessage) -> list[tasks.Delivery]:
        """Reads what was handed out, as the child does."""
        wanted = tasks.sources(self.feed.namespace.all_partitions, ["default"])
        converse(self.feed.link, tasks.ensure_groups(self.feed.namespace.keys, wanted))
        table = {source.key.encode(): source for source in wanted}
        found = tasks.parse(call(self.feed.link, *tasks.read(child.consumer, wanted, 100)), table)
        assert len(found) == len(messages)
        order = {f"{message.dispatch.split('-')[2]}-0": number for number, message in enumerate(messages)}
        return sorted(found, key=lambda delivery: order[delivery.entry])

    def idle(self, delivery: tasks.Delivery) -> int:
        (row,) = call(self.feed.link, "XPENDING", delivery.source.key, GROUP, delivery.entry, delivery.entry, 1)
        return int(row[2])

    def age(self, delivery: tasks.Delivery, ms: int, child: FakeChild | None = None) -> None:
        """Makes a delivery's lease that old; of the last child, if `child` is not given."""
        consumer = (child or self.children[-1]).consumer
        command = ("XCLAIM", delivery.source.key, GROUP, consumer, 0, delivery.entry, "IDLE", ms, "JUSTID")
        call(self.feed.link, *command)


def held(*deliveries: tuple[tasks.Delivery, bool]) -> Report:
    rows: dict[str, Held] = {}
    for delivery, begun in deliveries:
        row = rows.setdefault(delivery.source.key, Held(delivery.source.key, [], []))
        row.entries.append(delivery.entry)
        row.begun.append(begun)
    return Report(list(rows.values()), 0)
