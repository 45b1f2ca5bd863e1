"""Rules of the round trip: all that `encode` takes comes back; typed where annotated; by JSON what JSON has."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from headrace_broker.codec import check_json, decode, decode_json, encode
from headrace_broker.errors import PayloadNotSerializable

SURROGATES = st.characters(categories=["Cs"])


class Size(Enum):
    SMALL = "s"
    LARGE = 10**30


@dataclass(frozen=True)
class Line:
    article: str
    price: Decimal
    tags: frozenset[str] = frozenset()


class Order(BaseModel):
    id: UUID
    at: datetime
    due: date | None
    lines: list[Line]
    size: Size
    patience: timedelta
    weight: float
    count: int
    raw: bytes
    by_number: dict[int, tuple[str, bool]]


@dataclass
class Tree:
    name: str
    children: list[Tree] = field(default_factory=list["Tree"])


lines = st.builds(
    Line, st.text(), st.decimals(allow_nan=False, allow_infinity=False), st.frozensets(st.text(), max_size=3)
)
orders = st.builds(
    Order,
    id=st.uuids(),
    at=st.datetimes(timezones=st.just(UTC)) | st.datetimes(),
    due=st.none() | st.dates(),
    lines=st.lists(lines, max_size=3),
    size=st.sampled_from(Size),
    patience=st.timedeltas(),
    weight=st.floats(allow_nan=False),
    count=st.integers(-(2**300), 2**300),
    raw=st.binary(),
    by_number=st.dictionaries(st.integers(), st.tuples(st.text(), st.booleans()), max_size=3),
)
trees = st.recursive(
    st.builds(Tree, st.text()), lambda inner: st.builds(Tree, st.text(), st.lists(inner, max_size=3)), max_leaves=10
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**300), 2**300) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(orders)
def test_a_model_comes_back_typed(order: Order) -> None:
    assert decode(encode(order), Order) == order


@given(st.lists(lines, max_size=3), trees)
def test_dataclasses_and_those_that_hold_themselves(found: list[Line], tree: Tree) -> None:
    assert decode(encode((found, tree)), tuple[list[Line], Tree]) == (found, tree)


@given(st.recursive(st.text(st.characters() | SURROGATES), lambda inner: st.lists(inner, max_size=3)))
def test_text_comes_back_or_is_refused_for_its_surrogates(value: object) -> None:
    if any(0xD800 <= ord(character) <= 0xDFFF for character in json.dumps(value, ensure_ascii=False)):
        with pytest.raises(PayloadNotSerializable, match="lone surrogate"):
            encode(value)
    else:
        assert decode(encode(value)) == value


@given(json_values)
def test_json_that_passes_is_read_as_it_was_written_and_has_no_infinity(value: object) -> None:
    data = json.dumps(value, ensure_ascii=False).encode()
    try:
        check_json(data)
    except PayloadNotSerializable:
        assert b"Infinity" in data
        return
    assert decode_json(data) == value


@given(st.integers(-400, 400), st.integers(1, 9))
def test_a_json_number_is_finite_or_refused(exponent: int, digit: int) -> None:
    data = f"[{digit}e{exponent}]".encode()
    try:
        check_json(data)
    except PayloadNotSerializable:
        assert math.isinf(float(data[1:-1]))
        return
    assert decode_json(data) == [float(data[1:-1])]
