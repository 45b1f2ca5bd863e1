"""A composite of 10,000 values of 1 KB, as a map will make them: moved by the orchestrator unread, read in chunks."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from typing import Any, Final

import pytest

from headrace_broker import codec, payloads, values
from headrace_broker.connection import AsyncLink, Command, Server
from headrace_broker.definitions import Definition, Node
from headrace_broker.messages import pack
from headrace_broker.records import Token
from headrace_broker.values import Output, Value
from headrace_orchestrator import loader
from headrace_orchestrator.engine.nodes import KINDS
from headrace_orchestrator.engine.program import Inert
from headrace_orchestrator.engine.turn import Turn

from . import flows
from .bench import Bench, check_once, settle, steps

pytestmark = pytest.mark.real_only

PARTS: Final = 10_000
TEXTS: Final = [f"{n:04}" + "x" * 1000 for n in range(PARTS)]


def part_slot(number: int) -> str:
    return f"w.{number}"


class Gather(Inert):
    """What the end of a map will do: a list of the slots that its branches have filled."""

    def parse(self, params: Mapping[str, Any]) -> None: ...

    def enter(self, turn: Turn, id: int, token: Token) -> None:
        turn.store_composite("all", "list", [], [part_slot(number) for number in range(PARTS)])
        turn.advance(id, token, "all")


@pytest.fixture
def wide(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench with an instance `w` whose branches have ended: 10 MB lie in its outputs."""
    monkeypatch.setattr(loader, "KINDS", {**KINDS, "gather": Gather()})
    definition = bench.register(Definition("w", (Node("gather", "gather", 1, {}), flows.retrying("total", None, 1))))
    incarnation = bench.start("w", definition)
    outputs = bench.part.outputs(incarnation)
    for start in range(0, PARTS, 1000):
        pairs = [
            item
            for number in range(start, start + 1000)
            for item in (part_slot(number), values.inline(codec.encode(TEXTS[number])))
        ]
        bench.call("HSET", outputs, *pairs)
    return bench


class Measured:
    """`AsyncLink` that keeps the bytes of each reply."""

    def __init__(self, link: AsyncLink) -> None:
        self._link = link
        self.replies: list[int] = []

    async def exchange(self, commands: Any, *, timeout: float | None = None) -> list[Any]:
        replies = await self._link.exchange(commands, timeout=timeout)
        self.replies += [sum(map(len, reply)) for reply in replies]
        return replies

    async def close(self) -> None:
        await self._link.close()


def size_of(commands: list[Command]) -> int:
    return sum(len(part if isinstance(part, bytes) else str(part)) for command in commands for part in command)


def test_the_orchestrator_reads_none_of_it_and_a_message_names_only_its_slot(wide: Bench) -> None:
    orchestrator, hand = wide.orchestrator(), wide.hand()
    tracemalloc.start()
    try:
        steps(orchestrator)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000, "the 10 MB were not here"
    read = [command for command in wide.tap.sent if command[0] in ("GET", "MGET", "HGET", "HMGET", "HVALS")]
    assert not [command for command in read if any("w." in str(part) for part in command[1:])]
    assert size_of(wide.tap.sent) < 200_000, "the composite is written once, as names"
    (held,) = hand.take()
    assert values.parse(held.task.value) == Output("all")
    assert len(pack(held.task)) < 500
    hand.fail(held)
    steps(orchestrator)
    wide.pass_time(100)
    steps(orchestrator)
    (again,) = hand.take()
    assert again.task.value == held.task.value
    hand.answer(again)
    settle(orchestrator, hand)
    check_once(wide.history("w"), "total")


async def test_a_worker_reads_it_in_chunks(wide: Bench) -> None:
    hand = wide.hand()
    steps(wide.orchestrator())
    (held,) = hand.take()
    link = Measured(await Server(wide.server.url).connect_async())
    try:
        outputs = wide.part.outputs(held.task.incarnation)
        resolved = await payloads.resolve(link, held.task.value, outputs)
    finally:
        await link.close()
    assert payloads.load(resolved, list[str]) == TEXTS
    assert len(link.replies) == 1 + -(-PARTS // 256)
    assert max(link.replies) < 300_000
    hand.answer(held)
    settle(wide.orchestrator(1), hand)


def test_it_may_be_what_a_flow_returns(wide: Bench) -> None:
    definition = wide.register(Definition("w", (Node("gather", "gather", None, {}),)))
    wide.start("end", definition)
    steps(wide.orchestrator())
    assert wide.status("end") == "completed"
    value: Value = wide.output("end")
    assert len(values.needs(value)[1]) == PARTS
