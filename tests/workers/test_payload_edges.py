"""Results at the limits, and results that cannot be carried: the step fails with a clear error, the worker goes on."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Final

import pytest
from pydantic import BaseModel, model_serializer

from headrace import task
from headrace_broker import codec, payloads, values
from headrace_broker.codec import INLINE_LIMIT, PAYLOAD_LIMIT
from headrace_broker.connection import call
from headrace_broker.messages import ResultMessage
from support.feeding import INCARNATION, Feed

from .conftest import Children

pytestmark = pytest.mark.real_only

_HEAD: Final = 5
"""Bytes that MessagePack puts before bytes of 64 KiB and more; before fewer, 3."""


class Broken(BaseModel):
    x: int = 1

    @model_serializer
    def fail(self) -> str:
        raise RuntimeError("no way")


class Hidden(BaseException):
    """None that `except Exception` catches."""


class Worse(BaseModel):
    @model_serializer
    def fail(self) -> str:
        raise Hidden("no way at all")


@dataclass
class Node:
    children: list[Any] = field(default_factory=list[Any])


class Unsaid(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def circle() -> object:
    items: list[object] = []
    items.append(items)
    return items


def circle_of_models() -> object:
    node = Node()
    node.children.append({"parent": [node]})
    return node


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def numbers() -> Any:
    yield from range(3)


def raise_unsaid() -> object:
    raise Unsaid


REFUSED: list[tuple[str, Callable[[], object], str, str]] = [
    ("itself", circle, "PayloadNotSerializable", "contains itself"),
    ("models", circle_of_models, "PayloadNotSerializable", "contains itself"),
    ("deep", partial(deep, 129), "PayloadNotSerializable", "nested deeper than 128 levels"),
    ("abyss", partial(deep, 100_000), "PayloadNotSerializable", "nested deeper than 128 levels"),
    ("surrogate", lambda: "\ud800", "PayloadNotSerializable", "lone surrogate"),
    ("dump", Broken, "PayloadNotSerializable", "no way"),
    ("worse", Worse, "PayloadNotSerializable", "no way at all"),
    ("generator", numbers, "PayloadNotSerializable", "use list(...)"),
    ("endless", itertools.count, "PayloadNotSerializable", "use list(...)"),
    ("map", partial(map, str, [1]), "PayloadNotSerializable", "use list(...)"),
    ("large", partial(bytes, PAYLOAD_LIMIT + 1 - _HEAD), "PayloadTooLarge", "1,048,577 bytes, the limit is 1,048,576"),
    ("many", lambda: [0] * PAYLOAD_LIMIT, "PayloadTooLarge", "1,048,581 bytes"),
    ("key", lambda: {"k" * PAYLOAD_LIMIT: 1}, "PayloadTooLarge", "the limit is"),
    ("digits", lambda: 1 << 8 * PAYLOAD_LIMIT, "PayloadTooLarge", "the limit is"),
    ("unsaid", raise_unsaid, "Unsaid", "its __str__ raised RuntimeError"),
]


def value_keys(feed: Feed) -> list[bytes]:
    return [key for keys in feed.namespace.all_partitions for key in call(feed.link, "KEYS", f"{keys.tag}:v:*")]


@pytest.mark.parametrize("kind", ["thread", "coroutine"])
async def test_what_cannot_be_carried_fails_its_step_and_nothing_else(
    feed: Feed, children: Children, kind: str
) -> None:
    made = {name: make for name, make, _, _ in REFUSED}

    @task(name="make", retries=3)
    def in_thread(name: str) -> object:
        return made[name]()

    @task(name="make", retries=3)
    async def in_loop(name: str) -> object:
        await asyncio.sleep(0)
        return made[name]()

    @task
    async def fine() -> str:
        return "fine"

    children.start(in_thread if kind == "thread" else in_loop, fine, concurrency=4)
    handed = [feed.hand_out("make", name, max_attempts=4) for name, _, _, _ in REFUSED]
    for message, (name, _, error, text) in zip(handed, REFUSED, strict=True):
        result = await feed.result_async(message)
        assert (result.outcome, result.value) == ("failed", None), name
        failure = result.failure
        assert failure is not None
        assert (failure.type, text in failure.message) == (error, True), failure
        assert failure.may_retry is (False if error.startswith("Payload") else None), "the same would come again"
        assert len(failure.message) < 1000
    assert payloads.load((await feed.result_async(feed.hand_out("fine"))).value or b"") == "fine"
    assert value_keys(feed) == [], "nothing was written"


@pytest.mark.parametrize("kind", ["thread", "coroutine"])
async def test_results_at_the_limits(feed: Feed, children: Children, kind: str) -> None:
    @task(name="grow")
    def in_thread(size: int) -> bytes:
        return b"\xff" * size

    @task(name="grow")
    async def in_loop(size: int) -> bytes:
        return b"\xff" * size

    children.start(in_thread if kind == "thread" else in_loop)
    for size, inline in (
        (INLINE_LIMIT - 4, True),
        (INLINE_LIMIT - 3, True),
        (INLINE_LIMIT - 2, False),
        (PAYLOAD_LIMIT - _HEAD - 1, False),
        (PAYLOAD_LIMIT - _HEAD, False),
    ):
        result = await feed.result_async(feed.hand_out("grow", size))
        assert result.value is not None, result.failure
        parsed = values.parse(result.value)
        if isinstance(parsed, values.Inline):
            assert inline
            assert codec.decode(parsed.payload) == b"\xff" * size
        else:
            assert isinstance(parsed, values.Reference)
            assert not inline
            assert codec.decode(call(feed.link, "GET", parsed.key)) == b"\xff" * size
            assert call(feed.link, "PTTL", parsed.key) > 0
    assert len(value_keys(feed)) == 3


async def test_a_router_that_says_too_much_or_nothing_a_key_could_be(feed: Feed, children: Children) -> None:
    @task
    def choose(length: int) -> str:
        return "k" * length

    @task
    def number() -> int:
        return 2**200

    children.start(choose, number)

    async def route(name: str, argument: Any = None) -> ResultMessage:
        return await feed.result_async(feed.hand_out(name, argument))

    assert (await route("choose", 10)).route == "k" * 10
    assert (await route("choose", 10_000)).route is None
    assert (await route("number")).route is None
    large = await route("choose", PAYLOAD_LIMIT)
    assert large.failure is not None
    assert large.failure.type == "PayloadTooLarge"


async def test_a_join_of_large_parts_is_read_whole_and_one_that_passes_its_limit_fails(
    feed: Feed, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    @task
    async def join(left: bytes, right: bytes) -> list[int]:
        return [len(left), len(right)]

    message = feed.message("join")
    keys = feed.namespace.of(message.instance)
    payload = codec.encode(bytes(PAYLOAD_LIMIT - _HEAD))
    named: list[values.Value] = []
    for name in ("a", "b"):
        key = keys.value(INCARNATION, name)
        call(feed.link, "SET", key, payload, "PX", 60_000)
        named.append(values.reference(key, len(payload)))
    value = values.composite("args", ["left", "right"], named)
    children.start(join)
    result = await feed.result_async(feed.hand_out("join", instance=message.instance, value=value))
    assert result.value == values.inline(codec.encode([PAYLOAD_LIMIT - _HEAD] * 2))
    monkeypatch.setattr(payloads, "COMPOSITE_LIMIT", 2 * PAYLOAD_LIMIT - 1)
    result = await feed.result_async(feed.hand_out("join", instance=message.instance, value=value))
    assert result.failure is not None
    assert (result.failure.type, result.failure.may_retry) == ("PayloadTooLarge", False)
    assert "let the branches pass where it lies" in result.failure.message


async def test_what_json_does_not_have_goes_from_task_to_task(feed: Feed, children: Children) -> None:
    strange: list[Any] = [
        float("inf"),
        -(2**200),
        b"\xff\xfe",
        {1: "a", (2, 3): "b", None: "c"},
        {1, 2},
        (),
        [],
        {},
        "",
        Decimal("-0.00"),
    ]

    @task
    async def echo(given: list[Any]) -> list[Any]:
        assert given == strange
        return given

    children.start(echo)
    result = await feed.result_async(feed.hand_out("echo", strange))
    assert payloads.load(result.value or b"") == strange
