"""What cannot be carried: refused with its place, never half written, never a crash."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import time
from functools import partial
from typing import Any, Generic, TypeVar
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, model_serializer

from headrace_broker.codec import MAX_DEPTH, MAX_EXT_DEPTH, decode, encode
from headrace_broker.errors import PayloadNotSerializable

T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    content: T


class Celsius:
    """A class that the codec knows nothing of."""

    def method(self) -> None: ...


def a_function() -> None: ...


@dataclass
class Job:
    items: list[Any] = field(default_factory=list[Any])


@dataclass(frozen=True)
class Frozen:
    x: int = 1


class Broken(BaseModel):
    x: int = 1

    @model_serializer
    def fail(self) -> str:
        raise RuntimeError("no way")


async def a_coroutine() -> None: ...


def cyclic_list() -> object:
    items: list[object] = [1]
    items.append({"again": items})
    return items


def cyclic_tuple() -> object:
    items: list[object] = []
    items.append((items,))
    return items


def cyclic_job() -> object:
    job = Job()
    job.items.append(job)
    return job


def nested(levels: int, wrap: Callable[[object], object]) -> object:
    value: object = 1
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: Job([1, {"callback": a_function}]),
            "value.items[1].callback: the function a_function cannot be carried; ",
        ),
        (lambda: lambda: 1, "value: the function"),
        (lambda: partial(print, 1), "value: the function partial cannot"),
        (lambda: [len], "value[0]: the function len"),
        (lambda: Celsius, "value: the class Celsius cannot be carried; pass its name"),
        (lambda: {"e": ValueError("x")}, "value.e: the exception ValueError"),
        (lambda: iter([1]), "value: a value of type list_iterator cannot be carried; use list(...)"),
        (lambda: range(3), "use list(...)"),
        (lambda: {"a": 1}.keys(), "use list(...)"),
        (lambda: sys, "value: the module sys"),
        (threading.Lock, "a value of type _thread.lock cannot be carried; use a pydantic model"),
        (
            lambda: Box[SecretStr](content=SecretStr("hush")),
            "value.content: a value of type pydantic.types.SecretStr would lie",
        ),
        (lambda: {"a b": [(1, {Celsius})]}, "value['a b'][0][1][0]: the class Celsius"),
        (lambda: [time(12, tzinfo=ZoneInfo("Europe/Paris"))], "value[0]: a time in Europe/Paris, whose offset depends"),
        (lambda: ["ok", "\ud800"], "value[1]: text with a lone surrogate (U+D800 at 0)"),
        (lambda: {"\udfff": 1}, "as a key: text with a lone surrogate"),
        (lambda: {Frozen(): 1}, "value[Frozen]: a Frozen is no key once it is stored"),
        (lambda: {(1, frozenset((Frozen(),))): 1}, "value[tuple]: a tuple is no key once it is stored"),
        (lambda: {Celsius.method: 1}, "as a key: the function Celsius.method"),
        (lambda: [Broken()], "value[0]: "),
        (cyclic_list, "value[1].again: it contains itself"),
        (cyclic_tuple, "value[0][0]: it contains itself"),
        (cyclic_job, "value.items[0]: it contains itself"),
        (lambda: nested(5000, lambda inner: [inner]), "nested deeper than 128 levels"),
        (lambda: nested(5000, lambda inner: {"x": inner}), "nested deeper than 128 levels"),
        (lambda: nested(5000, lambda inner: (inner,)), "nested deeper than 128 levels"),
        (lambda: nested(5000, lambda inner: Job([inner])), "nested deeper than 128 levels"),
        (lambda: nested(100, lambda inner: (inner,)), "at most 128 levels, 32 of them tuples and sets"),
        (lambda: nested(6, lambda inner: (nested(1000, lambda more: [more]), inner)), "nested deeper than 128 levels"),
    ],
)
def test_what_cannot_be_carried_is_refused_with_its_place(make: Callable[[], object], said: str) -> None:
    with pytest.raises(PayloadNotSerializable) as caught:
        encode(make())
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_forgotten_await_is_named() -> None:
    forgotten = a_coroutine()
    with pytest.raises(PayloadNotSerializable, match="was an `await` forgotten"):
        encode({"x": forgotten})
    forgotten.close()


def test_the_payload_itself_is_not_in_the_message() -> None:
    with pytest.raises(PayloadNotSerializable) as caught:
        encode({"password": "hush", "then": len})
    assert "hush" not in str(caught.value)


def test_a_refused_value_leaves_the_codec_clean() -> None:
    for _ in range(3):
        with pytest.raises(PayloadNotSerializable):
            encode(["x" * 100, (1, (len,))])
        assert encode([1]) == b"\x91\x01"


def test_what_is_nested_within_the_limits_comes_back() -> None:
    for value in (nested(MAX_DEPTH, lambda inner: [inner]), nested(MAX_EXT_DEPTH, lambda inner: (inner,))):
        assert decode(encode(value)) == value
    mixed = nested(MAX_EXT_DEPTH, lambda inner: (nested(3, lambda more: [more]), inner))
    assert decode(encode(mixed)) == mixed


@given(st.integers(0, 1100))
def test_what_encode_accepts_decode_accepts(levels: int) -> None:
    value = nested(levels, lambda inner: [inner])
    try:
        data = encode(value)
    except PayloadNotSerializable:
        assert levels > MAX_DEPTH
        return
    assert levels <= MAX_DEPTH
    decode(data)


LEVELS: list[Callable[[object], object]] = [
    lambda inner: [inner],
    lambda inner: [1, "é" * 50, inner],
    lambda inner: {"x": inner},
    lambda inner: {"job": Job([1]), "x": inner},
    lambda inner: [(1, 2), {3}, inner],
]


@pytest.mark.parametrize("level", LEVELS)
def test_the_limit_of_levels_is_exact(level: Callable[[object], object]) -> None:
    encode(nested(MAX_DEPTH - 2, level))
    for levels in (MAX_DEPTH + 1, 200):
        with pytest.raises(PayloadNotSerializable, match="nested deeper than 128 levels"):
            encode(nested(levels, level))


def test_tuples_count_among_the_levels() -> None:
    for lists, fits in ((124, True), (125, False)):
        value = nested(lists, lambda inner: [inner])
        for _ in range(4):
            value = (value,)
        if fits:
            assert decode(encode(value)) == value
        else:
            with pytest.raises(PayloadNotSerializable, match="nested deeper than 128 levels"):
                encode(value)


def test_much_and_flat_is_not_deep() -> None:
    for value in ([[n] for n in range(1000)], [(n, n) for n in range(1000)], bytes(range(256)) * 100, "é" * 1000):
        assert decode(encode(value)) == value
