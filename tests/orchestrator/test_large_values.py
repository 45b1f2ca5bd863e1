"""Values too large to be inline: adopted by the commit that takes them, deleted by the one that does not."""

from __future__ import annotations

import json

import pytest

from headrace_broker import codec, payloads, values
from headrace_broker.connection import Server
from headrace_broker.definitions import Definition
from headrace_broker.values import Reference

from . import flows
from .bench import Bench, check_once, counted, kinds, settle, steps

pytestmark = pytest.mark.real_only

LARGE = "x" * 100_000


async def resolved(bench: Bench, id: str, value: bytes) -> object:
    link = await Server(bench.server.url).connect_async()
    try:
        keys = bench.namespace.of(id)
        incarnation = bench.snapshot(id).incarnation
        return payloads.load(await payloads.resolve(link, value, keys.outputs(incarnation)))
    finally:
        await link.close()


async def test_a_large_input(bench: Bench) -> None:
    incarnation = bench.start("c", bench.register(flows.chain("a")), LARGE)
    hand = bench.hand()
    settle(bench.orchestrator(), hand)
    assert await resolved(bench, "c", hand.taken[0].task.value) == LARGE
    (key,) = bench.values(incarnation)
    assert bench.call("PTTL", key) == -1


async def test_a_large_result_is_adopted(bench: Bench) -> None:
    incarnation = bench.start("c", bench.register(flows.chain("a", "b")))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    steps(orchestrator)
    hand.work({"a": LARGE})
    (key,) = bench.values(incarnation)
    assert bench.call("PTTL", key) > 0, "not yet"
    steps(orchestrator)
    assert bench.call("PTTL", key) == -1
    (held,) = hand.take()
    assert isinstance(values.parse(held.task.value), Reference)
    assert await resolved(bench, "c", held.task.value) == LARGE
    hand.answer(held)
    settle(orchestrator, hand)
    check_once(bench.history("c"), "a", "b")


def test_a_stale_one_is_dropped(bench: Bench) -> None:
    incarnation = bench.start("c", bench.register(flows.chain("a")))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    steps(orchestrator)
    (held,) = hand.take()
    bench.cancel("c")
    steps(orchestrator)
    hand.answer(held, result=LARGE)
    assert len(bench.values(incarnation)) == 1
    steps(orchestrator)
    assert bench.values(incarnation) == []
    assert counted(orchestrator, "stale_results_total") == 1


def test_one_of_an_incarnation_that_is_gone_is_dropped(bench: Bench) -> None:
    definition = bench.register(flows.chain("a"))
    incarnation = bench.start("c", definition)
    orchestrator, hand = bench.orchestrator(), bench.hand()
    steps(orchestrator)
    (held,) = hand.take()
    bench.cancel("c")
    steps(orchestrator)
    bench.start("c", definition)
    steps(orchestrator)
    hand.answer(held, result=LARGE)
    settle(orchestrator, hand)
    assert bench.values(incarnation) == []
    assert counted(orchestrator, "stale_results_total") == 1
    check_once(bench.history("c"), "a")


async def test_one_that_ran_out_counts_as_a_lost_delivery(bench: Bench) -> None:
    """No owner was there for an hour, so the worker's key is gone, but its result was accepted: do the task again."""
    incarnation = bench.start("c", bench.register(flows.chain("a", "b")))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    steps(orchestrator)
    hand.work({"a": LARGE})
    (key,) = bench.values(incarnation)
    bench.call("DEL", key)
    steps(orchestrator)
    (held,) = hand.take()
    assert (held.node, held.task.losses) == ("a", 1)
    hand.answer(held, result=LARGE)
    steps(orchestrator)
    (held,) = hand.take()
    assert await resolved(bench, "c", held.task.value) == LARGE
    hand.answer(held)
    settle(orchestrator, hand)
    history = bench.history("c")
    check_once(history, "a", "b")
    assert [event.fields["cause"] for event in kinds(history, "redelivered")] == ["lost"]


async def test_a_raw_signal_of_100_kb(bench: Bench) -> None:
    incarnation = bench.start("s", bench.register(Definition("s", (flows.wait("go", 1), flows.task("t", None)))))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    steps(orchestrator)
    bench.raw_signal("s", "go", json.dumps({"text": LARGE}))
    steps(orchestrator)
    (key,) = bench.values(incarnation)
    assert bench.call("PTTL", key) == -1
    (held,) = hand.take()
    assert isinstance(values.parse(held.task.value), Reference)
    assert await resolved(bench, "s", held.task.value) == {"text": LARGE}
    hand.answer(held)
    settle(orchestrator, hand)
    check_once(bench.history("s"), "t")


async def test_a_large_signal_of_a_client(bench: Bench) -> None:
    bench.start("s", bench.register(Definition("s", (flows.wait("go", 1), flows.task("t", None)))))
    bench.signal("s", "go", LARGE)
    hand = bench.hand()
    settle(bench.orchestrator(), hand)
    assert await resolved(bench, "s", hand.taken[0].task.value) == LARGE


async def test_a_join_names_large_parts_and_carries_small_ones(bench: Bench) -> None:
    definition = Definition(
        "f",
        (
            flows.fork("fork", 3, x=1, y=2),
            flows.task("b", None),
            flows.task("c", None),
            flows.task("join", None),
        ),
    )
    bench.register(definition)
    orchestrator, hand = bench.orchestrator(), bench.hand()
    for id, result in (("small", 1), ("large", LARGE)):
        bench.start(id, definition)
        steps(orchestrator)
        hand.work({"b": result})
        steps(orchestrator)
        (held,) = hand.take()
        _, slots = values.needs(held.task.value)
        assert bool(slots) == (id == "large"), "what is small needs no more reading"
        arguments = payloads.arguments(held.task.value)
        assert arguments is not None
        assert await resolved(bench, id, arguments["x"]) == result
        hand.answer(held)
        settle(orchestrator, hand)
        assert bench.status(id) == "completed"


def test_a_slot_that_is_not_in_memory_is_read(bench: Bench) -> None:
    """Another owner goes on: it has seen none of the values."""
    definition = Definition("d", (flows.task("a", 1), flows.delay("sleep", 2, 60_000), flows.task("b", None)))
    bench.start("c", bench.register(definition))
    first, hand = bench.orchestrator(1), bench.hand()
    settle(first, hand)
    first.close()
    bench.pass_time(60_000)
    settle(bench.orchestrator(2), hand)
    check_once(bench.history("c"), "a", "b")
    assert hand.taken[-1].task.value == values.inline(codec.encode("a"))


@pytest.mark.parametrize("size", [codec.INLINE_LIMIT, codec.INLINE_LIMIT + 1, codec.PAYLOAD_LIMIT])
async def test_raw_signals_at_the_limits(bench: Bench, size: int) -> None:
    incarnation = bench.start("s", bench.register(Definition("s", (flows.wait("go", 1), flows.task("t", None)))))
    text = "é" + "x" * (size - 4)
    bench.raw_signal("s", "go", json.dumps(text, ensure_ascii=False))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    steps(orchestrator)
    assert len(bench.values(incarnation)) == int(size > codec.INLINE_LIMIT)
    (held,) = hand.take()
    assert await resolved(bench, "s", held.task.value) == text
    hand.answer(held)
    settle(orchestrator, hand)
    check_once(bench.history("s"), "t")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'"' + b"x" * (codec.PAYLOAD_LIMIT - 1) + b'"', "has 1,048,577 bytes, the limit is 1,048,576"),
        (b"NaN", "there is no NaN and no Infinity"),
        (b"[1e999]", "larger than a float can be"),
        (b"1" * 5000, "number out of range"),
        (b'"\xff"', "Not JSON"),
        (b'"\\ud800"', "Not JSON"),
        (b"[" * 129 + b"]" * 129, "nested deeper than 128 levels"),
        (b"", "Not JSON"),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_raw_signals_that_are_refused(bench: Bench, payload: bytes, reason: str) -> None:
    incarnation = bench.start("s", bench.register(Definition("s", (flows.wait("go", 1), flows.task("t", None)))))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    bench.raw_signal("s", "go", payload)
    steps(orchestrator)
    (found,) = bench.quarantine()
    assert reason in found["reason"]
    assert bench.values(incarnation) == []
    bench.raw_signal("s", "go", '{"a": 1, "a": 1267650600228229401496703205376}')
    steps(orchestrator)
    (held,) = hand.take()
    assert payloads.load(held.task.value) == {"a": 2**100}, "the last of two keys counts, as in most readers of JSON"
    hand.answer(held)
    settle(orchestrator, hand)
    check_once(bench.history("s"), "t")
