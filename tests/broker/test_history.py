"""History: chunks round-trip, entries have names, garbage is told from them."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_broker import history
from headrace_broker.errors import MessageError
from headrace_broker.history import FIELDS, VERSION, Entry
from support.examples import examples

_msgpack: Any = msgpack  # it has no type stubs

AT = 1_700_000_000_000
CODES: dict[str, int] = {
    name: code for name, code in vars(history).items() if name.isupper() and name not in ("VERSION", "FIELDS")
}
ENTRIES: list[tuple[Any, ...]] = [
    (AT, history.STARTED, "orders", "0123456789abcdef" * 2, "alice"),
    (AT + 1, history.DISPATCHED, 0, 0, 0, 1, 1),
    (AT + 20, history.COMPLETED, 0, 0, 0, 1, 1, AT + 2, 17, "k.1"),
]
GOLDEN = (
    "92019395cf0000018bcfe5680001a66f7264657273d92030313233343536373839616263646566303132333435363738"
    "39616263646566a5616c69636597cf0000018bcfe568010200000001019acf0000018bcfe56814030000000101cf0000"
    "018bcfe5680211a36b2e31"
)

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=10) | st.binary(max_size=5)
entries = st.tuples(st.integers(0, 2**63), st.integers(0, 200), st.lists(scalars, max_size=10)).map(
    lambda entry: (entry[0], entry[1], *entry[2])
)
anything = st.recursive(
    scalars | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


def wire(value: Any) -> bytes:
    packed: bytes = _msgpack.packb(value)
    return packed


def test_golden_bytes() -> None:
    assert history.pack(ENTRIES).hex() == GOLDEN
    assert history.unpack(bytes.fromhex(GOLDEN)) == [Entry(at, code, tuple(fields)) for at, code, *fields in ENTRIES]


def test_an_entry_stays_small() -> None:
    """A finished step and its instance have to fit into 1.5 KB (invariant 7)."""
    assert len(history.pack(ENTRIES[1:])) < 60


@given(st.lists(entries, max_size=5))
@settings(deadline=None)
def test_round_trip(rows: list[tuple[Any, ...]]) -> None:
    assert history.unpack(history.pack(rows)) == [Entry(row[0], row[1], row[2:]) for row in rows]


def test_the_codes_are_pinned() -> None:
    """A code is never given another meaning: histories outlive releases."""
    assert list(CODES.values()) == list(range(1, len(CODES) + 1))
    assert list(FIELDS) == list(CODES.values())
    assert len({name for name, _ in FIELDS.values()}) == len(FIELDS)
    for _, fields in FIELDS.values():
        assert len(set(fields)) == len(fields)


def test_fields_have_names() -> None:
    entry = Entry(AT, history.DISPATCHED, (2, 0, 1, 7, 3))
    assert entry.kind == "dispatched"
    assert entry.named() == {"node": 2, "frame": 0, "branch": 1, "step": 7, "attempt": 3}


def test_fields_of_a_newer_release_have_numbers() -> None:
    assert Entry(AT, history.BLOCKED, ("why", "new")).named() == {"reason": "why", "field_1": "new"}
    unknown = Entry(AT, 200, (1, "x"))
    assert unknown.kind == "unknown_200"
    assert unknown.named() == {"field_0": 1, "field_1": "x"}


def test_fields_of_an_older_release_are_left_out() -> None:
    assert Entry(AT, history.DISPATCHED, (2, 0)).named() == {"node": 2, "frame": 0}


def test_appended_fields_of_a_chunk_are_ignored() -> None:
    assert history.unpack(wire([VERSION, ENTRIES, "new"])) == history.unpack(history.pack(ENTRIES))


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xc1",
        b"\x92\x01",
        wire(None),
        wire(7),
        wire("ab"),
        wire({}),
        wire({"a": 1, "b": 2}),
        wire([]),
        wire([VERSION]),
        wire([VERSION, None]),
        wire([VERSION, 5]),
        wire([VERSION, "12"]),
        wire([VERSION, {"12": 3}]),
        wire([VERSION, [None]]),
        wire([VERSION, ["12"]]),
        wire([VERSION, [[]]]),
        wire([VERSION, [[AT]]]),
        wire([VERSION, [["1", "2"]]]),
        wire([VERSION, [[1.5, 2]]]),
        wire([VERSION, [[float("inf"), 2]]]),
        wire([VERSION, [[float("nan"), 2]]]),
        wire([VERSION, [[AT, None]]]),
        wire([VERSION, [[AT, True]]]),
        wire([VERSION + 1, []]),
        wire([True, []]),
        wire([VERSION, []]) + b"\x00",
        b"\x91" * 1020 + b"\xc0",
        b"\x92" + b"\x91" * 1020 + b"\xc0" + b"\x90",
        b"\x92\x01" + b"\x91" * 1020 + b"\xc0",
    ],
)
def test_garbage(garbage: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        history.unpack(garbage)
    assert len(str(caught.value)) < 300


@given(st.binary(max_size=60) | anything.map(wire) | anything.map(lambda value: wire([VERSION, [value]])))
@settings(deadline=None, max_examples=examples(200))
def test_fuzz(data: bytes) -> None:
    try:
        found = history.unpack(data)
    except MessageError:
        return
    for entry in found:
        entry.named()
