"""The wire contract: golden bytes, and what each Python type comes back as without an annotation."""

from __future__ import annotations

import ipaddress
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, Field, HttpUrl, Json, PostgresDsn, RootModel, computed_field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from headrace_broker.codec import decode, encode
from headrace_broker.errors import PayloadMismatch

A_UUID = UUID("00112233-4455-6677-8899-aabbccddeeff")
PARIS = timezone(timedelta(hours=2))

GOLDEN: list[tuple[object, bytes]] = [
    (None, b"\xc0"),
    (True, b"\xc3"),
    (7, b"\x07"),
    (2**64 - 1, b"\xcf" + b"\xff" * 8),
    (-(2**63), b"\xd3\x80" + b"\x00" * 7),
    (1.5, b"\xcb\x3f\xf8" + b"\x00" * 6),
    ("é", b"\xa2\xc3\xa9"),
    (b"\x00", b"\xc4\x01\x00"),
    ([1, []], b"\x92\x01\x90"),
    ({"a": 1, 2: None}, b"\x82\xa1a\x01\x02\xc0"),
    (datetime(2024, 2, 29, 1, 2, 3, 4), b"\xc7\x1a\x012024-02-29T01:02:03.000004"),
    (datetime(2024, 2, 29, tzinfo=UTC), b"\xc7\x19\x012024-02-29T00:00:00+00:00"),
    (datetime(2024, 2, 29, tzinfo=PARIS), b"\xc7\x19\x012024-02-29T00:00:00+02:00"),
    (date(2024, 2, 29), b"\xc7\x0a\x022024-02-29"),
    (time(1, 2, 3), b"\xd7\x0301:02:03"),
    (timedelta(0), b"\xd4\x04\x00"),
    (timedelta(microseconds=128), b"\xd5\x04\x00\x80"),
    (timedelta(microseconds=-1), b"\xd4\x04\xff"),
    (A_UUID, b"\xd8\x05" + A_UUID.bytes),
    (Decimal("1.50"), b"\xd6\x061.50"),
    (2**64, b"\xc7\x09\x07\x01" + b"\x00" * 8),
    (-(2**63) - 1, b"\xc7\x09\x07\xff\x7f" + b"\xff" * 7),
    ({1}, b"\xd5\x08\x91\x01"),
    (frozenset(("a",)), b"\xc7\x03\x09\x91\xa1a"),
    ((), b"\xd4\x0a\x90"),
    ((1, ("a",)), b"\xd7\x0a\x92\x01\xc7\x03\x0a\x91\xa1a"),
]


@pytest.mark.parametrize(("value", "data"), GOLDEN, ids=lambda value: repr(value)[:30])
def test_the_bytes_of_each_type_never_change(value: object, data: bytes) -> None:
    assert encode(value) == data
    back = decode(data)
    assert back == value
    assert type(back) is type(value)


def test_a_timestamp_of_messagepack_itself_is_read() -> None:
    assert decode(b"\xd6\xff\x00\x00\x00\x01") == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()).map(lambda at: at.astimezone(timezone(at.utcoffset() or timedelta(0)))),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
)
keys = st.recursive(scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4)
payloads = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.tuples(inner, inner),
        st.sets(keys, max_size=4),
        st.frozensets(keys, max_size=4),
    ),
    max_leaves=20,
)


def types_of(value: Any) -> object:
    name: str = value.__class__.__name__
    if name in ("list", "tuple"):
        return name, [types_of(item) for item in value]
    if name == "dict":
        return name, [(types_of(key), types_of(item)) for key, item in value.items()]
    return name


@given(payloads)
def test_any_plain_value_comes_back_equal_and_of_the_same_type(value: object) -> None:
    back = decode(encode(value))
    assert back == value
    assert types_of(back) == types_of(value)


def test_not_a_number_and_the_infinities_are_carried() -> None:
    nan, infinity, decimal = decode(encode([float("nan"), float("-inf"), Decimal("NaN")]))
    assert nan != nan
    assert infinity == float("-inf")
    assert decimal.is_nan()


def test_an_aware_datetime_keeps_its_instant_and_offset() -> None:
    winter = datetime(2024, 1, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))
    back = decode(encode(winter))
    assert back == winter
    assert back.utcoffset() == timedelta(hours=1)


class Colour(Enum):
    RED = "red"
    PAIR = (1, 2)


class Number(IntEnum):
    ONE = 1


class Word(StrEnum):
    HI = "hi"


class Bits(Flag):
    A = 1
    B = 2


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class Blob(bytes):
    pass


class Moment(datetime):
    pass


class Amount(Decimal):
    pass


class Names(set[str]):
    pass


@dataclass
class Inner:
    when: date


@dataclass(frozen=True, slots=True)
class Outer:
    inner: Inner
    many: list[Inner] = field(default_factory=list[Inner])


@pydantic_dataclass
class Checked:
    amount: Decimal = Field(alias="Amount")


class Line(BaseModel):
    price: Decimal = Field(alias="Price", serialization_alias="PRICE")
    raw: Json[list[int]] = Field(default_factory=list[int])

    @computed_field
    def twice(self) -> Decimal:
        return 2 * self.price


class Numbers(RootModel[set[int]]):
    pass


PLAIN: list[tuple[object, object]] = [
    (Colour.RED, "red"),
    (Colour.PAIR, (1, 2)),
    (Number.ONE, 1),
    (Word.HI, "hi"),
    (Bits.A | Bits.B, 3),
    (Pair(1), (1, "r")),
    (Text("t"), "t"),
    (Whole(3), 3),
    (Whole(2**70), 2**70),
    (Real(0.5), 0.5),
    (Blob(b"b"), b"b"),
    (Moment(2024, 1, 1), datetime(2024, 1, 1)),
    (Amount("1.0"), Decimal("1.0")),
    (Names("a"), {"a"}),
    (bytearray(b"b"), b"b"),
    (memoryview(b"b"), b"b"),
    (OrderedDict([("a", 1)]), {"a": 1}),
    (defaultdict(list, {"a": [1]}), {"a": [1]}),
    (Counter("aa"), {"a": 2}),
    (MappingProxyType({"a": 1}), {"a": 1}),
    (deque([1, 2], maxlen=2), [1, 2]),
    (Path("a/b"), "a/b"),
    (ipaddress.ip_address("::1"), "::1"),
    (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
    (zoneinfo.ZoneInfo("Europe/Paris"), "Europe/Paris"),
    (Fraction(1, 3), "1/3"),
    (HttpUrl("http://a.example/b"), "http://a.example/b"),
    (AnyUrl("x:y"), "x:y"),
    (PostgresDsn("postgres://u@h/d"), "postgres://u@h/d"),
    (Inner(date(2024, 1, 1)), {"when": date(2024, 1, 1)}),
    (
        Outer(Inner(date(2024, 1, 1)), [Inner(date(2024, 1, 2))]),
        {"inner": {"when": date(2024, 1, 1)}, "many": [{"when": date(2024, 1, 2)}]},
    ),
    (Checked(Amount=Decimal(1)), {"amount": Decimal(1)}),  # pyright: ignore[reportCallIssue]
    (Line(Price=Decimal(1)), {"price": Decimal(1), "raw": "[]"}),
    (Numbers({1}), {1}),
    (
        {Colour.RED: 1, Number.ONE: 2, A_UUID: 3, (1, "a"): 4, None: 5},
        {"red": 1, 1: 2, A_UUID: 3, (1, "a"): 4, None: 5},
    ),
    ([{Pair(1): Word.HI}], [{(1, "r"): "hi"}]),
]


@pytest.mark.parametrize(("value", "plain"), PLAIN, ids=lambda value: type(value).__name__)
def test_a_class_comes_back_as_its_plain_value_where_there_is_no_annotation(value: object, plain: object) -> None:
    back = decode(encode(value))
    assert back == plain
    assert types_of(back) == types_of(plain)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x92\x01",
        b"\x01\x02",
        b"\xa1\xff",
        b"\x81\x90\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\x00\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xd7\xff" + b"\xff" * 8,
        b"\xd4\x01x",
        b"\xd4\x02\xff",
        b"\xd4\x05x",
        b"\xd4\x06x",
        b"\xc7\x0a\x04" + b"\x7f" * 10,
        b"\xd4\x08\x01",
        b"\xd5\x0a\x81\x01",
        b"\xd4\x63x",
        b"\x91" * 5000 + b"\xc0",
    ],
    ids=lambda data: repr(data[:8]),
)
def test_bytes_that_are_no_payload_are_a_mismatch(data: bytes) -> None:
    with pytest.raises(PayloadMismatch, match=f"The {len(data)} bytes are not a MessagePack payload"):
        decode(data)


def test_endless_tuples_on_the_wire_are_a_mismatch() -> None:
    data = b"\x90"
    for _ in range(200):
        data = b"\xc8" + len(data).to_bytes(2, "big") + b"\x0a" + b"\x91" + data
    with pytest.raises(PayloadMismatch):
        decode(data)


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_are_a_mismatch(data: bytes) -> None:
    try:
        value = decode(data)
    except PayloadMismatch:
        return
    assert decode(encode(value)) == value or value != value or "nan" in repr(value).lower()
