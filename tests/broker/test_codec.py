"""What authors meet: annotations, errors that name the place, limits, JSON."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    computed_field,
    field_validator,
    model_serializer,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from headrace_broker.codec import (
    PAYLOAD_LIMIT,
    adapter,
    check_json,
    check_size,
    decode,
    decode_json,
    encode,
    validate,
)
from headrace_broker.errors import FlowError, PayloadMismatch, PayloadNotSerializable, PayloadTooLarge

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    PAIR = (1, 2)


class Point(NamedTuple):
    x: int
    y: int = 0


class Address(TypedDict):
    street: Annotated[str, Field(alias="Street")]
    since: date


@dataclass(frozen=True)
class Tag:
    name: str


@pydantic_dataclass
class Weight:
    grams: int = Field(alias="g")


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")

    price: Decimal = Field(alias="Price", serialization_alias="PRICE")
    count: int = Field(default=1, validation_alias=AliasChoices("n", AliasPath("counts", 0)))
    picture: bytes = b""

    @computed_field
    def total(self) -> Decimal:
        return self.price * self.count


class Order(BaseModel):
    id: UUID
    at: datetime
    items: list[Item]
    tags: set[Tag] = set()
    corners: tuple[Point, ...] = ()
    colours: dict[Colour, frozenset[int]] = {}
    home: Address | None = None
    weight: Weight | None = None
    where: Path = Path()
    data: Any = None


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")

    tags: frozenset[Tag]


class Box(BaseModel, Generic[T]):
    content: T


class Celsius:
    """A class that pydantic knows nothing of."""

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Celsius) and other.degrees == self.degrees

    __hash__ = None  # type: ignore[assignment]


def to_celsius(value: object) -> object:
    return Celsius(value) if isinstance(value, float) else value


class Weather(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    now: Annotated[Celsius, PlainSerializer(lambda c: c.degrees), BeforeValidator(to_celsius)]


class Swapped(BaseModel):
    a: int = Field(alias="b")
    b: int = Field(alias="a")


@dataclass
class HoldsSwapped:
    many: list[Swapped]


class ByPath(BaseModel):
    a: int = Field(validation_alias=AliasPath("b", 0))
    b: list[int]


class ByChoice(TypedDict):
    a: Annotated[int, Field(validation_alias=AliasChoices("c", "b"))]
    b: int


def an_order() -> Order:
    home: Any = {"Street": "x", "since": date(2024, 1, 1)}
    return Order(
        id=uuid4(),
        at=datetime(2024, 1, 1, tzinfo=UTC),
        items=[
            Item.model_validate({"Price": "1.50", "n": 3, "picture": b"\xff\x00"}),
            Item(Price=Decimal(2)),
        ],  # pyright: ignore[reportCallIssue]
        tags={Tag("a"), Tag("b")},
        corners=(Point(1), Point(2, 3)),
        colours={Colour.RED: frozenset((1,)), Colour.PAIR: frozenset()},
        weight=Weight(g=5),  # pyright: ignore[reportCallIssue]
        where=Path("a/b"),
        data=(1, {2}, date(2024, 1, 1)),
        home=home,
    )


def test_a_model_comes_back_whole_whatever_its_aliases_and_computed_fields() -> None:
    order = an_order()
    assert decode(encode(order), Order) == order


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Tag("a"), Tag),
        ({Tag("a")}, set[Tag]),
        (frozenset((Tag("a"),)), frozenset[Tag]),
        ({"street": "s", "since": date(2024, 1, 1)}, Address),
        (Point(1, 2), Point),
        ([Point(1, 2)], list[Point]),
        (Colour.PAIR, Colour),
        ({Colour.PAIR: 1}, dict[Colour, int]),
        ("a", Literal["a", "b"]),
        (Box[int](content=1), Box[int]),
        (Box[Tag](content=Tag("a")), Box[Tag]),
        (Weather(now=Celsius(1.5)), Weather),
        (RootModel[set[Tag]]({Tag("a")}), RootModel[set[Tag]]),
        (Loose.model_validate({"tags": {Tag("a")}, "more": 1}), Loose),
        (Tag("t"), int | Tag | None),
        (None, int | None),
        (None, None),
        (5, Annotated[int, Field(ge=1)]),
        (Path("a"), Path),
        ({1: UUID(int=1)}, dict[int, UUID]),
        ((1, "a"), tuple[int, str]),
        (b"\xff", bytes),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_value_comes_back_as_the_annotation_says(value: object, annotation: object) -> None:
    back = decode(encode(value), annotation)
    assert back == value
    assert type(back) is type(value)


def test_the_order_of_a_union_counts_although_python_holds_both_orders_equal() -> None:
    @dataclass
    class One:
        x: int

    @dataclass
    class Two:
        x: int

    data = encode({"x": 1})
    assert type(decode(data, One | Two)) is One
    assert type(decode(data, Two | One)) is Two


def test_a_dict_written_by_hand_validates_by_alias_and_by_name() -> None:
    for price in ("Price", "price"):
        assert decode(encode({price: 2, "counts": [4]}), Item).count == 4


def test_a_plain_value_is_validated_as_a_decoded_one_is() -> None:
    assert validate([{"name": "a"}], list[Tag]) == [Tag("a")]
    assert validate({"x": 1}, Any) == {"x": 1}
    with pytest.raises(PayloadMismatch, match=r"The payload does not fit Tag: value\.name: field required"):
        validate({}, Tag)


def test_a_subclass_in_a_field_is_carried_as_the_field_declares_it() -> None:
    class Base(BaseModel):
        model_config = ConfigDict(extra="forbid")
        x: int

    class Derived(Base):
        y: int

    class Holder(BaseModel):
        base: Base

    holder = Holder(base=Derived(x=1, y=2))
    assert decode(encode(holder), Holder) == Holder(base=Base(x=1))


def test_a_model_that_writes_itself_in_another_shape_is_carried_in_that_shape() -> None:
    class Money(BaseModel):
        cents: int

        @model_serializer
        def as_text(self) -> str:
            return f"{self.cents} ct"

    assert decode(encode([Money(cents=5)])) == ["5 ct"]


@pytest.mark.parametrize("annotation", [Swapped, HoldsSwapped, ByPath, ByChoice, dict[str, list[Swapped]]])
def test_an_alias_that_is_the_name_of_another_field_is_refused(annotation: object) -> None:
    with pytest.raises(FlowError, match="field 'a' has the alias 'b', which is the name of another field"):
        adapter(annotation)


def test_an_annotation_that_cannot_be_validated_is_an_error_of_the_flow() -> None:
    for annotation in (Celsius, list[Celsius], "NoSuchName", 3):
        with pytest.raises(FlowError, match="Payloads cannot be validated against"):
            decode(encode(1), annotation)


def test_an_adapter_is_made_once_for_one_annotation() -> None:
    annotation = list[Order]
    assert adapter(annotation) is adapter(annotation)


def test_a_mismatch_names_the_field_what_was_expected_and_what_came() -> None:
    data = {"id": uuid4(), "at": "now", "items": [{"Price": "1"}, {"Price": "dear", "x": 1}]}
    with pytest.raises(PayloadMismatch) as caught:
        decode(encode(data), Order)
    text = str(caught.value)
    assert text.startswith("The payload does not fit Order: value.at: input should be a valid datetime")
    assert "got str 'now'" in text
    assert "value.items[1].Price: input should be a valid decimal, got str 'dear'" in text
    assert "value.items[1].x: extra inputs are not permitted, got int 1" in text


def test_a_mismatch_is_short_however_large_the_payload() -> None:
    with pytest.raises(PayloadMismatch) as caught:
        decode(encode({"x" * 1000: ["long " * 1000] * 100}), dict[str, list[int]])
    assert str(caught.value).endswith("(and 97 more).")
    assert len(str(caught.value)) < 1200


def test_a_validator_that_breaks_is_a_mismatch_with_its_reason() -> None:
    class Broken(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def check(cls, value: int) -> int:
            raise KeyError(value)

    with pytest.raises(PayloadMismatch, match="does not fit Broken: its validator raised KeyError: 1"):
        decode(encode({"x": 1}), Broken)


@given(
    st.recursive(
        st.none() | st.text() | st.integers() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_any_value_validates_or_is_a_mismatch_with_a_short_text(value: object) -> None:
    for annotation in (Order, set[Point], dict[int, Item], Tag | Address):
        try:
            decode(encode(value), annotation)
        except PayloadMismatch as error:
            assert len(str(error)) < 2000  # noqa: PT017


def test_many_threads_encode_at_once() -> None:
    orders = [an_order() for _ in range(20)]
    wrong: list[Order] = []

    def work() -> None:
        for _ in range(10):
            wrong.extend(order for order in orders if decode(encode(order), Order) != order)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_a_payload_over_its_limit_is_refused_with_both_sizes_and_advice() -> None:
    check_size(bytes(PAYLOAD_LIMIT))
    with pytest.raises(PayloadTooLarge) as caught:
        check_size(bytes(PAYLOAD_LIMIT + 1))
    assert "1,048,577 bytes, the limit is 1,048,576. Store the data elsewhere" in str(caught.value)
    assert caught.value.ids == {"size": PAYLOAD_LIMIT + 1, "limit": PAYLOAD_LIMIT}
    with pytest.raises(PayloadTooLarge, match="has 3 bytes, the limit is 2"):
        check_size(b"abc", 2)


@pytest.mark.parametrize(
    "data", ['{"é": [1, 2.50]}'.encode(), b" null ", b"1e99", b'"\\u00e9"', b'{"a": 1, "a": 2}', b'"1e999"', b"9" * 400]
)
def test_what_is_json_passes(data: bytes) -> None:
    check_json(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"hello",
        b"{'a': 1}",
        b"NaN",
        b"-Infinity",
        b'{"a": 1} x',
        b'"\\ud800"',
        b'"\xed\xa0\x80"',
        b"\xff",
        b"[" * 5000,
        b"[1,]",
        b"1e999",
        b'{"a": [-1E+400]}',
        b"1" * 400 + b".0",
        b"1" * 5000,
    ],
)
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(PayloadNotSerializable, match="Not JSON"):
        check_json(data)


def test_json_that_nests_too_deeply_is_refused() -> None:
    check_json(b"[" * 128 + b"]" * 128)
    check_json(b"[" + b"[{}]," * 200 + b"1]")
    for deep in (b"[" * 129 + b"]" * 129, b'{"a":' * 130 + b"1" + b"}" * 130):
        with pytest.raises(PayloadNotSerializable, match="nested deeper than 128 levels"):
            check_json(deep)


def test_json_is_validated_in_json_mode() -> None:
    at = decode_json(b'"2024-01-01T00:00:00Z"', datetime)
    assert at == datetime(2024, 1, 1, tzinfo=UTC)
    assert decode_json(b"[1, 1]", set[int]) == {1}
    assert decode_json(b'{"name": "a"}', Tag) == Tag("a")
    assert decode_json(b'{"Price": "1"}', Item) == decode_json(b'{"price": 1}', Item)
    assert decode_json(b'{"a": [1, null]}') == {"a": [1, None]}


def test_json_that_does_not_fit_is_a_mismatch() -> None:
    with pytest.raises(PayloadMismatch, match=r"value\.price|value\.Price: field required"):
        decode_json(b"{}", Item)
    with pytest.raises(PayloadMismatch, match="invalid JSON"):
        decode_json(b"{", Item)
    with pytest.raises(PayloadMismatch):
        decode_json(b"\xff")
