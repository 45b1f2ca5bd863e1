"""Definitions: the content hash is pinned, and only a definition is read as one."""

from __future__ import annotations

from typing import Any, cast

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_broker.definitions import VERSION, Definition, Node, RetrySpec, TaskCall
from headrace_broker.errors import MessageError
from support.examples import examples

_msgpack: Any = msgpack  # it has no type stubs

CHARGE = TaskCall("shop.charge", "payments", "process", 30_000, RetrySpec(3, 500, 2.0, 60_000, 0.1))
VALIDATE = TaskCall("shop.validate")

# One node of every kind.
NODES = (
    Node("task", "validate", 1, {"call": VALIDATE.to_wire()}),
    Node("delay", "cool-off", 2, {"ms": 1000}),
    Node(
        "signal",
        "approval",
        3,
        {"signal": "ok", "timeout_ms": 5000, "on_timeout": None, "default": b"m\xc0", "keep_input": True},
    ),
    Node("fork", "parts", 6, {"branches": [["a", 4], ["b", 5]], "shape": "dict"}),
    Node("task", "a", None, {"call": CHARGE.to_wire()}),
    Node("task", "b", None, {"call": CHARGE.to_wire()}),
    Node("route", "kind", None, {"call": VALIDATE.to_wire(), "branches": {"big": 4, True: 5}, "default": None}),
)
ORDERS = Definition("orders", NODES)

# If these change, every deployed flow gets another hash: old instances go on, but all is stored anew. Is it meant?
GOLDEN_DIGEST = "58723108140f264ecc3f603fa81727e3"
GOLDEN_WIRE = (
    "9401a66f7264657273009194a47461736ba161c081a463616c6c95ab73686f702e636861726765a87061796d656e7473"
    "a770726f63657373cd75309503cd01f4cb4000000000000000cdea60cb3fb999999999999a"
)


def wire(value: Any) -> bytes:
    packed: bytes = _msgpack.packb(value)
    return packed


def array() -> list[Any]:
    """The definition as the array that crosses the wire."""
    parts: list[Any] = _msgpack.unpackb(ORDERS.wire, strict_map_key=False)
    return parts


def test_golden() -> None:
    assert ORDERS.digest == GOLDEN_DIGEST
    small = Definition("orders", (Node("task", "a", None, {"call": CHARGE.to_wire()}),))
    assert small.wire.hex() == GOLDEN_WIRE


def test_round_trip() -> None:
    read = Definition.from_wire(ORDERS.wire)
    assert read == ORDERS
    assert read.wire == ORDERS.wire
    assert read.digest == ORDERS.digest


def test_the_order_of_params_is_irrelevant() -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            items: dict[Any, Any] = dict(cast(Any, value))
            return {key: turned(items[key]) for key in reversed(items)}
        return value

    other = Definition("orders", tuple(Node(n.kind, n.name, n.next, turned(n.params)) for n in NODES))
    assert [list(node.params) for node in other.nodes] != [list(node.params) for node in NODES]
    assert other.digest == ORDERS.digest


def test_tuples_and_lists_are_the_same_content() -> None:
    node = Node("fork", "parts", 6, {"branches": (("a", 4), ("b", 5)), "shape": "dict"})
    assert Definition("orders", (*NODES[:3], node, *NODES[4:])).digest == ORDERS.digest


def test_a_whole_backoff_is_the_same_content_as_a_float() -> None:
    assert RetrySpec(backoff=2, jitter=0).to_wire() == RetrySpec(backoff=2.0, jitter=0.0).to_wire()
    assert wire(RetrySpec(backoff=2, jitter=0).to_wire()) == wire(RetrySpec().to_wire())


@pytest.mark.parametrize(
    "other",
    [
        Definition("order", NODES),
        Definition("orders", NODES, 1),
        Definition("orders", NODES[:-1]),
        Definition("orders", (NODES[1], NODES[0], *NODES[2:])),
        Definition("orders", (Node("task", "validat", 1, NODES[0].params), *NODES[1:])),
        Definition("orders", (Node("route", "validate", 1, NODES[0].params), *NODES[1:])),
        Definition("orders", (Node("task", "validate", None, NODES[0].params), *NODES[1:])),
        Definition("orders", (Node("task", "validate", 1, {"call": CHARGE.to_wire()}), *NODES[1:])),
        Definition("orders", (NODES[0], Node("delay", "cool-off", 2, {"ms": 1001}), *NODES[2:])),
        Definition("orders", (*NODES[:6], Node("route", "kind", None, {**NODES[6].params, "default": 4}))),
    ],
)
def test_other_content_has_another_digest(other: Definition) -> None:
    assert other.digest != ORDERS.digest


def test_calls_and_retry_specs_round_trip() -> None:
    for call in (CHARGE, VALIDATE):
        assert TaskCall.from_wire(call.to_wire()) == call
        assert RetrySpec.from_wire(call.retry.to_wire()) == call.retry
        assert TaskCall.from_wire([*call.to_wire(), "appended"]) == call
        assert RetrySpec.from_wire([*call.retry.to_wire(), "appended"]) == call.retry


def test_calls_are_listed_in_node_order() -> None:
    assert ORDERS.calls() == [VALIDATE, CHARGE, CHARGE, VALIDATE]


def test_appended_fields_are_ignored() -> None:
    parts = array()
    parts[3] = [[*row, "new"] for row in parts[3]]
    assert Definition.from_wire(wire([*parts, {"new": 1}])) == ORDERS


@pytest.mark.parametrize("place", [-1, 7, 8, 2**40, 1.0, "1", True, [], {}])
@pytest.mark.parametrize("of", ["first", "next"])
def test_a_place_out_of_bounds(of: str, place: object) -> None:
    parts = array()
    if of == "first":
        parts[2] = place
    else:
        parts[3][4][2] = place
    with pytest.raises(MessageError):
        Definition.from_wire(wire(parts))


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xc1",
        b"\x94\x01",
        wire(None),
        wire(1),
        wire("abcd"),
        wire({}),
        wire({1: 2, 3: 4, 5: 6, 7: 8}),
        wire([]),
        wire([VERSION, "f", 0]),
        wire([VERSION, "f", 0, []]),
        wire([VERSION, "f", 0, {}]),
        wire([VERSION, "f", 0, "rows"]),
        wire([VERSION, "f", 0, [1]]),
        wire([VERSION, "f", 0, ["abcd"]]),
        wire([VERSION, "f", 0, [["task", "a", None]]]),
        wire([VERSION, "f", 0, [["task", "a", None, []]]]),
        wire([VERSION, "f", 0, [["task", "a", None, [["ms", 1]]]]]),
        wire([VERSION, "f", 0, [[1, "a", None, {}]]]),
        wire([VERSION, "f", 0, [["task", None, None, {}]]]),
        wire([VERSION, None, 0, [["delay", "a", None, {}]]]),
        wire([VERSION, "f", None, [["delay", "a", None, {}]]]),
        wire([VERSION, "f", float("inf"), [["delay", "a", None, {}]]]),
        wire([VERSION, "f", float("nan"), [["delay", "a", None, {}]]]),
        wire([VERSION + 1, "f", 0, [["delay", "a", None, {}]]]),
        wire([True, "f", 0, [["delay", "a", None, {}]]]),
        wire([VERSION, "f", 0, [["delay", "a", None, {}]]]) + b"\x00",
        b"\x91" * 1020 + b"\xc0",
        b"\x94" + b"\x91" * 1020 + b"\xc0" + b"\xa1f\x00\x90",
        b"\x94\x01\xa1f\x00" + b"\x91" * 1020 + b"\xc0",
        b"\x94\x01\xa1f" + b"\x91" * 1020 + b"\xc0" + b"\x90",
    ],
)
def test_garbage(garbage: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        Definition.from_wire(garbage)
    assert len(str(caught.value)) < 300


CALL: list[Any] = CHARGE.to_wire()
RETRY: list[Any] = CHARGE.retry.to_wire()
NO_RETRIES: list[Any] = [None, [], {}, "abcde", RETRY[:4]]
NO_NUMBERS: list[Any] = [None, -1, -1.0, "1", []]
NO_CALLS: list[Any] = [None, 1, "abcde", {}, {1: 2}, [], CALL[:4]]


@pytest.mark.parametrize(
    "call",
    [
        *NO_CALLS,
        *([*CALL[:2], "fiber", *CALL[3:]], [*CALL[:2], [], *CALL[3:]]),
        *([*CALL[:3], None, CALL[4]], [*CALL[:3], float("inf"), CALL[4]], [*CALL[:3], -1, CALL[4]]),
        *([None, *CALL[1:]], ["", *CALL[1:]], [CALL[0], 7, *CALL[2:]], [CALL[0], "", *CALL[2:]]),
        *([*CALL[:4], retry] for retry in NO_RETRIES),
        *([*CALL[:4], [*RETRY[:at], bad, *RETRY[at + 1 :]]] for at in range(5) for bad in NO_NUMBERS),
        *([*CALL[:4], [*RETRY[:at], float("nan"), *RETRY[at + 1 :]]] for at in (2, 4)),
        *([*CALL[:4], [*RETRY[:at], float("inf"), *RETRY[at + 1 :]]] for at in (2, 4)),
    ],
    ids=repr,
)
def test_a_call_that_cannot_be_read(call: object) -> None:
    with pytest.raises(MessageError):
        Definition.from_wire(wire([VERSION, "f", 0, [["task", "a", None, {"call": call}]]]))


@given(st.binary(max_size=100))
@settings(deadline=None, max_examples=examples(300))
def test_fuzz_with_bytes(data: bytes) -> None:
    assert_definition_or_refused(data)


@given(st.binary(min_size=1, max_size=4), st.integers(0, 400))
@settings(deadline=None, max_examples=examples(400))
def test_fuzz_with_a_damaged_definition(noise: bytes, at: int) -> None:
    assert_definition_or_refused(ORDERS.wire[:at] + noise + ORDERS.wire[at + len(noise) :])


def assert_definition_or_refused(data: bytes) -> None:
    try:
        definition = Definition.from_wire(data)
    except MessageError:
        return
    definition.calls()
    assert Definition.from_wire(definition.wire).digest == definition.digest
