"""Values: round trips, golden bytes, garbage, depth."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_broker import values
from headrace_broker.errors import MessageError
from headrace_broker.values import Composite, Inline, Output, Reference, Shape, Value
from support.examples import examples

_msgpack: Any = msgpack  # it has no type stubs

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
leaves = st.one_of(
    st.builds(values.inline, st.binary(max_size=10), st.sampled_from("mj")),
    st.builds(values.reference, texts, st.integers(0, 2**32), st.sampled_from("mj")),
    st.builds(values.output, texts),
)


def composites(parts: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    dicts = st.dictionaries(texts, parts, max_size=4)
    return st.one_of(
        dicts.map(lambda items: values.composite("args", items, items.values())),
        dicts.map(lambda items: values.composite("dict", items, items.values())),
        st.lists(parts, max_size=4).map(lambda items: values.composite("list", (), items)),
        st.tuples(parts, parts).map(lambda items: values.composite("pair", (), items)),
    )


trees = st.recursive(leaves, composites, max_leaves=12)


def nested(depth: int, innermost: Value) -> Value:
    value = innermost
    for _ in range(depth):
        value = values.composite("list", (), [value])
    return value


@pytest.mark.parametrize(
    ("value", "golden", "parsed"),
    [
        (values.inline(b"\x01"), "6d01", Inline("m", b"\x01")),
        (values.inline(b"{}", "j"), "6a7b7d", Inline("j", b"{}")),
        (values.inline(b""), "6d", Inline("m", b"")),
        (values.reference("{ns:1}:v:i:x", 20_000), "7293ac7b6e733a317d3a763a693a78cd4e20a16d", None),
        (values.output("n3.0"), "6f6e332e30", Output("n3.0")),
        (
            values.composite("args", ["a", "b"], [b"m\x01", b"on1"]),
            "6393a46172677392a161a16292c4026d01c4036f6e31",
            Composite("args", ["a", "b"], [b"m\x01", b"on1"]),
        ),
        (values.composite("pair", (), [b"m\x01", b"m\x02"]), "6393a4706169729092c4026d01c4026d02", None),
    ],
)
def test_golden_bytes(value: Value, golden: str, parsed: object) -> None:
    assert value.hex() == golden
    if parsed is not None:
        assert values.parse(value) == parsed


@given(st.binary(max_size=50), st.sampled_from("mj"))
def test_inline_round_trip(payload: bytes, codec: str) -> None:
    assert values.parse(values.inline(payload, codec)) == Inline(codec, payload)


@given(texts, st.integers(0, 2**63), st.sampled_from("mj"))
def test_reference_round_trip(key: str, size: int, codec: str) -> None:
    value = values.reference(key, size, codec)
    assert values.parse(value) == Reference(key, size, codec)
    assert values.is_reference(value)


@given(texts)
def test_output_round_trip(slot: str) -> None:
    assert values.parse(values.output(slot)) == Output(slot)
    assert not values.is_reference(values.output(slot))


@given(trees)
def test_a_tree_is_parsed_as_it_was_made(value: Value) -> None:
    parsed = values.parse(value)
    if isinstance(parsed, Composite):
        assert values.composite(*parsed) == value
        for part in parsed.parts:
            values.parse(part)


@pytest.mark.parametrize("shape", get_args(Shape))
def test_every_shape(shape: Shape) -> None:
    names = ["a", "b"] if shape in ("args", "dict") else []
    value = values.composite(shape, names, [b"m1", b"m2"])
    assert values.parse(value) == Composite(shape, names, [b"m1", b"m2"])


def test_needs_names_keys_and_slots_in_order() -> None:
    inner = values.composite("dict", ["x", "y"], [values.output("s2"), values.reference("k2", 1)])
    parts = [values.reference("k1", 1), values.inline(b""), values.output("s1"), inner, values.output("s1")]
    assert values.needs(values.composite("list", (), parts)) == (["k1", "k2"], ["s1", "s2", "s1"])


@pytest.mark.parametrize("value", [values.inline(b"okay"), values.inline(b"r", "j"), values.composite("list", (), [])])
def test_needs_nothing(value: Value) -> None:
    assert values.needs(value) == ([], [])


def test_needs_goes_64_deep() -> None:
    assert values.needs(nested(values.MAX_DEPTH, values.output("s"))) == ([], ["s"])
    with pytest.raises(MessageError, match="at most 64 deep"):
        values.needs(nested(values.MAX_DEPTH + 1, values.output("s")))


def wire(tag: bytes, body: Any) -> bytes:
    packed: bytes = _msgpack.packb(body)
    return tag + packed


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"x",
        b"\x00",
        b"M1",
        b"o\xff",
        b"r",
        b"r\xc1",
        b"r\x93\xa1k",
        b"c",
        b"c\xc1",
        b"c\x93",
        wire(b"r", None),
        wire(b"r", "key"),
        wire(b"r", []),
        wire(b"r", ["k", 1]),
        wire(b"r", [b"k", 1, "m"]),
        wire(b"r", ["k", "1", "m"]),
        wire(b"r", ["k", True, "m"]),
        wire(b"r", ["k", -1, "m"]),
        wire(b"r", ["k", 1.0, "m"]),
        wire(b"r", ["k", 1, "x"]),
        wire(b"r", ["k", 1, b"m"]),
        wire(b"r", ["k", 1, []]),
        wire(b"r", {"k": 1, "size": 2, "m": 3}),
        wire(b"r", ["k", 1, "m"]) + b"\x00",
        wire(b"c", None),
        wire(b"c", ["list", []]),
        wire(b"c", ["tuple", [], []]),
        wire(b"c", [["list"], [], []]),
        wire(b"c", [{}, [], []]),
        wire(b"c", ["list", [], [1]]),
        wire(b"c", ["list", [], ["m1"]]),
        wire(b"c", ["list", [], {"a": b"m"}]),
        wire(b"c", ["list", [], b"m"]),
        wire(b"c", ["list", [1], [b"m"]]),
        wire(b"c", ["list", None, [b"m"]]),
        wire(b"c", ["dict", ["a"], []]),
        wire(b"c", ["dict", [], [b"m"]]),
        wire(b"c", ["args", ["a", "b"], [b"m"]]),
        wire(b"c", ["args", [b"a"], [b"m"]]),
        wire(b"c", ["pair", [], [b"m"]]),
        wire(b"c", ["pair", [], [b"m", b"m", b"m"]]),
        b"c" + b"\x91" * 1020 + b"\xc0",
        b"c\x93\xa4list\x90" + b"\x91" * 1020 + b"\xc0",
    ],
)
def test_garbage(garbage: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        values.parse(garbage)
    assert len(str(caught.value)) < 300
    with pytest.raises(MessageError):
        values.needs(garbage)


def test_garbage_inside_a_composite_is_found_by_needs() -> None:
    with pytest.raises(MessageError):
        values.needs(nested(3, b"?"))


@given(st.binary(max_size=60), st.sampled_from([b"", b"r", b"c", b"o", b"c\x93\xa4list\x90"]))
@settings(deadline=None, max_examples=examples(150))
def test_fuzz_with_bytes(noise: bytes, start: bytes) -> None:
    for read in (values.parse, values.needs):
        with suppress(MessageError):
            read(start + noise)


@given(trees, st.binary(min_size=1, max_size=4), st.data())
@settings(deadline=None, max_examples=examples(150))
def test_fuzz_with_a_damaged_value(value: Value, noise: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(value)))
    with suppress(MessageError):
        values.needs(value[:at] + noise + value[at + len(noise) :])


def test_only_a_large_value_has_a_key_to_keep_or_delete() -> None:
    large = values.reference("{ns:0}:v:inc:x", 20_000)

    assert values.large_keys(large) == ["{ns:0}:v:inc:x"]
    assert values.large_keys(None) == []
    assert values.large_keys(values.composite("list", [], [large])) == []  # its parts belong to their own slots
