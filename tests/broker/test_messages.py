"""Messages: their bytes are pinned, they survive the round trip, and garbage is told from them."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace_broker.errors import MessageError
from headrace_broker.messages import (
    OUTCOMES,
    VERSION,
    WORKS,
    CancelMessage,
    ContinueMessage,
    DeleteMessage,
    Failure,
    GarbageMessage,
    Message,
    ResultMessage,
    SignalMessage,
    StartedMessage,
    StartMessage,
    TaskMessage,
    UnblockMessage,
    expect,
    pack,
    unpack,
)
from support.examples import examples

_msgpack: Any = msgpack  # it has no type stubs

INSTANCE, INCARNATION, DISPATCH = "order-17", "Ab3_-xyz0912", "2-1f0a9b-12-3"
WORKER, TRACE, AT = "keeper.1", "00-11-22-01", 1_700_000_000_000
DEFINITION = "0123456789abcdef" * 2
FAILURE = Failure("ValueError", "no stock", "Traceback …", False, 1500)

# Version 1, every kind. A change here is a change of the wire format: read the rule in `messages` first.
GOLDEN: dict[str, tuple[Message, str]] = {
    "task": (
        TaskMessage(
            *(INSTANCE, INCARNATION, 1, "orders", "charge", "shop.charge", DISPATCH, 4, 5, 2, 3, 1),
            *(True, 30_000, AT, b"m\x01", TRACE),
        ),
        "dc00130101a86f726465722d3137ac4162335f2d78797a3039313201a66f7264657273a6636861726765ab73686f702e"
        "636861726765ad322d3166306139622d31322d330405020301c3cd7530cf0000018bcfe56800c4026d01ab30302d3131"
        "2d32322d3031",
    ),
    "start": (
        StartMessage(
            *(INSTANCE, INCARNATION, "orders", DEFINITION, b"m\x01", "req-1", "alice", TRACE, 60_000),
        ),
        "9b0102a86f726465722d3137ac4162335f2d78797a30393132a66f7264657273d9203031323334353637383961626364"
        "656630313233343536373839616263646566c4026d01a57265712d31a5616c696365ab30302d31312d32322d3031cdea"
        "60",
    ),
    "completed": (
        ResultMessage(
            *(INSTANCE, INCARNATION, DISPATCH, 4, "completed", b"m\x01", None, "big", AT, 12, WORKER, TRACE),
        ),
        "9e0103a86f726465722d3137ac4162335f2d78797a30393132ad322d3166306139622d31322d3304a9636f6d706c6574"
        "6564c4026d01c0a3626967cf0000018bcfe568000ca86b65657065722e31ab30302d31312d32322d3031",
    ),
    "failed": (
        ResultMessage(INSTANCE, INCARNATION, DISPATCH, 4, "failed", None, FAILURE, None, AT, 12, WORKER),
        "9e0103a86f726465722d3137ac4162335f2d78797a30393132ad322d3166306139622d31322d3304a66661696c6564c0"
        "95aa56616c75654572726f72a86e6f2073746f636bad54726163656261636b20e280a6c2cd05dcc0cf0000018bcfe568"
        "000ca86b65657065722e31a0",
    ),
    "started": (
        StartedMessage(INSTANCE, INCARNATION, DISPATCH, 4, AT, WORKER),
        "980104a86f726465722d3137ac4162335f2d78797a30393132ad322d3166306139622d31322d3304cf0000018bcfe568"
        "00a86b65657065722e31",
    ),
    "signal": (
        SignalMessage(INSTANCE, "approval", b'j{"ok":true}', "req-2", "bob", TRACE),
        "980105a86f726465722d3137a8617070726f76616cc40c6a7b226f6b223a747275657da57265712d32a3626f62ab3030"
        "2d31312d32322d3031",
    ),
    "cancel": (
        CancelMessage(INSTANCE, "no longer wanted", "req-3", "bob", TRACE),
        "970106a86f726465722d3137b06e6f206c6f6e6765722077616e746564a57265712d33a3626f62ab30302d31312d32322d3031",
    ),
    "delete": (
        DeleteMessage(INSTANCE, "req-4", TRACE),
        "95010ba86f726465722d3137a57265712d34ab30302d31312d32322d3031",
    ),
    "garbage": (
        GarbageMessage("default", "12-3", b"\xff\x00", "Not MessagePack"),
        "960107a764656661756c74a431322d33c402ff00af4e6f74204d6573736167655061636b",
    ),
    "continue": (
        ContinueMessage(INSTANCE, INCARNATION, "unpark"),
        "950109a86f726465722d3137ac4162335f2d78797a30393132a6756e7061726b",
    ),
    "unblock": (
        UnblockMessage(INSTANCE, True, "req-4", "bob", TRACE),
        "97010aa86f726465722d3137c3a57265712d34a3626f62ab30302d31312d32322d3031",
    ),
}
EXAMPLES = [message for message, _ in GOLDEN.values()]
KINDS: tuple[type[Any], ...] = (
    *(TaskMessage, StartMessage, ResultMessage, StartedMessage, SignalMessage, CancelMessage, GarbageMessage),
    *(ContinueMessage, UnblockMessage, DeleteMessage),
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = texts.filter(bool)
naturals = st.integers(0, 2**63 - 1)
integers = st.integers(-(2**63), 2**63 - 1)
payloads = st.binary(max_size=20)
failures = st.builds(Failure, texts, texts, texts, st.none() | st.booleans(), st.none() | integers)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        TaskMessage,
        *(names, names, naturals, names, names, names, names, naturals, naturals, naturals, naturals, naturals),
        *(st.booleans(), naturals, naturals, payloads, texts),
    ),
    st.builds(StartMessage, names, names, names, names, payloads, texts, texts, texts, naturals),
    st.builds(
        ResultMessage,
        *(names, names, names, naturals, st.sampled_from(sorted(OUTCOMES)), st.none() | payloads),
        *(st.none() | failures, st.none() | texts, integers, integers, texts, texts),
    ),
    st.builds(StartedMessage, names, names, names, naturals, integers, texts),
    st.builds(SignalMessage, names, names, payloads, texts, texts, texts),
    st.builds(CancelMessage, names, texts, texts, texts, texts),
    st.builds(GarbageMessage, names, names, payloads, texts),
    st.builds(ContinueMessage, names, names, st.sampled_from(sorted(WORKS))),
    st.builds(UnblockMessage, names, st.booleans(), texts, texts, texts),
    st.builds(DeleteMessage, names, texts, texts),
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts | payloads
)  # what MessagePack can carry
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


def wire(value: Any) -> bytes:
    packed: bytes = _msgpack.packb(value)
    return packed


def parts(message: Message) -> list[Any]:
    """The message as the array that crosses the wire."""
    array: list[Any] = _msgpack.unpackb(pack(message))
    return array


def assert_message_or_refused(data: bytes) -> None:
    """Any exception but `MessageError` fails the test; what is accepted is a message that can be sent on."""
    try:
        message = unpack(data)
    except MessageError:
        return
    assert unpack(pack(message)) == message


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes(name: str) -> None:
    message, golden = GOLDEN[name]
    assert pack(message).hex() == golden
    read = unpack(bytes.fromhex(golden))
    assert read == message
    assert type(read) is type(message)


def test_every_kind_has_golden_bytes() -> None:
    assert VERSION == 1
    assert {type(message) for message in EXAMPLES} == set(KINDS)


@given(messages)
@settings(deadline=None)
def test_round_trip(message: Message) -> None:
    read = unpack(pack(message))
    assert read == message
    assert type(read) is type(message)
    if isinstance(read, ResultMessage):
        assert type(read.failure) in (Failure, type(None))


@pytest.mark.parametrize("message", EXAMPLES, ids=list(GOLDEN))
def test_appended_fields_are_ignored(message: Message) -> None:
    assert unpack(wire([*parts(message), "new", {"in": 2}, None])) == message


def test_appended_fields_of_a_failure_are_ignored() -> None:
    message, _ = GOLDEN["failed"]
    array = parts(message)
    at = array.index(list(FAILURE))
    array[at] = [*FAILURE, "new", 7]
    assert unpack(wire(array)) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=list(GOLDEN))
def test_missing_fields_get_their_defaults_as_far_as_they_have_one(message: Message) -> None:
    array = parts(message)
    required = len(message._fields) - len(message._field_defaults)
    for count in range(len(message._fields)):
        data = wire(array[: 2 + count])
        if count < required:
            with pytest.raises(MessageError, match=f"{type(message).__name__} has {count} fields, too few"):
                unpack(data)
        else:
            kept = message._asdict() | dict(list(message._field_defaults.items())[count - required :])
            assert unpack(data) == type(message)(**kept)


@pytest.mark.parametrize("known", range(2, 6))
def test_missing_fields_of_a_failure_get_their_defaults(known: int) -> None:
    array = parts(GOLDEN["failed"][0])
    array[array.index(list(FAILURE))] = list(FAILURE)[:known]
    read = unpack(wire(array))
    assert isinstance(read, ResultMessage)
    given: Any = FAILURE[:known]
    assert read.failure == Failure(*given)


@pytest.mark.parametrize(
    "failure",
    [
        *([], ["ValueError"], "ValueError", {"type": "x", "message": "y"}, 1, True),
        *([1, "no"], ["E", None], ["E", "no", None], ["E", "no", "", 1], ["E", "no", "", None, True]),
        *(["E", "no", "", None, 1.5], ["E", b"no"], [["E"], "no"]),
    ],
    ids=repr,
)
def test_not_a_failure(failure: object) -> None:
    array = parts(GOLDEN["failed"][0])
    array[array.index(list(FAILURE))] = failure
    with pytest.raises(MessageError, match=r"Failure|ResultMessage\.failure"):
        unpack(wire(array))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "Not MessagePack"),
        (b"\xc1", "Not MessagePack"),
        (b"\x93\x01", "Not MessagePack"),
        (b"\x93\x01\x03\x00\x00", "Not MessagePack"),
        (b"hello", "Not MessagePack"),
        (b"\xdd\xff\xff\xff\xff", "Not MessagePack"),
        (b"\xdb\xff\xff\xff\xffabc", "Not MessagePack"),
        (b"\x91" * 5000 + b"\x01", "Not MessagePack"),
        (b"\x81\x81\x01\x02\x03", "Not MessagePack"),
        (b"\xd6\xff\xff\xff\xff\xff", "a message"),
        (wire(None), "a message"),
        (wire({}), "a message"),
        (wire("ab"), "a message"),
        (wire([]), "a message"),
        (wire([1]), "a message"),
        (wire([2, 3]), "version 2"),
        (wire([0, 3]), "version 0"),
        (wire([True, 3]), "version True"),
        (wire([1.0, 3]), r"version 1\.0"),
        (wire([None, 3]), "version None"),
        (wire(["1", 3]), "version '1'"),
        (wire([1, 0]), "Unknown kind of message: 0"),
        (wire([1, 8]), "Unknown kind of message: 8"),
        (wire([1, 1000]), "Unknown kind of message: 1000"),
        (wire([1, -1]), "Unknown kind of message: -1"),
        (wire([1, True]), "Unknown kind of message: True"),
        (wire([1, 3.0]), r"Unknown kind of message: 3\.0"),
        (wire([1, []]), r"Unknown kind of message: \[\]"),
        (wire([1, {}]), r"Unknown kind of message: \{\}"),
        (wire([1, 3]), "ResultMessage has 0 fields"),
    ],
)
def test_garbage(data: bytes, complaint: str) -> None:
    with pytest.raises(MessageError, match=complaint):
        unpack(data)


NOT_TEXT: list[Any] = [None, 1, True, 1.5, b"x", [], {}]
NOT_NATURAL: list[Any] = [None, -1, True, 1.5, "1", b"1", [], {}]
WRONG: list[tuple[type[Any], str, list[Any]]] = [
    *((kind, "instance", ["", *NOT_TEXT]) for kind in KINDS if "instance" in kind._fields),
    *((kind, "incarnation", ["", *NOT_TEXT]) for kind in KINDS if "incarnation" in kind._fields),
    *((kind, "dispatch", ["", *NOT_TEXT]) for kind in KINDS if "dispatch" in kind._fields),
    *((kind, "traceparent", NOT_TEXT) for kind in KINDS if "traceparent" in kind._fields),
    *((kind, "actor", NOT_TEXT) for kind in KINDS if "actor" in kind._fields),
    *((TaskMessage, field, ["", *NOT_TEXT]) for field in ("flow", "node", "task")),
    *((TaskMessage, field, NOT_NATURAL) for field in ("run", "token", "step", "attempt", "max_attempts")),
    *((TaskMessage, field, NOT_NATURAL) for field in ("losses", "timeout_ms", "at")),
    (TaskMessage, "alone", [None, 0, 1, "", b""]),
    (TaskMessage, "value", [None, "m", 1, []]),
    (StartMessage, "definition", ["", *NOT_TEXT]),
    (StartMessage, "timeout_ms", NOT_NATURAL),
    (ResultMessage, "outcome", ["", "done", "COMPLETED", *NOT_TEXT]),
    (ResultMessage, "token", NOT_NATURAL),
    (ResultMessage, "value", ["m", 1, True, [], {}]),
    (ResultMessage, "route", [b"m", 1, True, [], {}]),
    (ResultMessage, "began", [None, True, 1.5, "1"]),
    (ResultMessage, "duration_ms", [None, True, 1.5, "1"]),
    (StartedMessage, "token", NOT_NATURAL),
    (SignalMessage, "name", ["", *NOT_TEXT]),
    (GarbageMessage, "raw", [None, "x", 1]),
    (GarbageMessage, "stream", ["", *NOT_TEXT]),
    (ContinueMessage, "work", ["", "rest", *NOT_TEXT]),
    (UnblockMessage, "skip", [None, 0, 1, "", b""]),
]


@pytest.mark.parametrize(
    ("kind", "field", "wrong"), WRONG, ids=[f"{kind.__name__}.{field}" for kind, field, _ in WRONG]
)
def test_a_field_of_the_wrong_type_is_named(kind: type[Any], field: str, wrong: list[Any]) -> None:
    message = next(example for example in EXAMPLES if type(example) is kind)
    for value in wrong:
        array = parts(message)
        array[2 + kind._fields.index(field)] = value
        with pytest.raises(MessageError, match=rf"^{kind.__name__}\.{field} cannot be "):
            unpack(wire(array))


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=examples(150))
def test_fuzz_with_bytes(data: bytes) -> None:
    assert_message_or_refused(data)


@given(st.binary(max_size=60), st.sampled_from(EXAMPLES), st.data())
@settings(deadline=None, max_examples=examples(150))
def test_fuzz_with_a_damaged_message(noise: bytes, message: Message, data: st.DataObject) -> None:
    packed = pack(message)
    start = data.draw(st.integers(0, len(packed)))
    end = data.draw(st.integers(start, min(start + 8, len(packed))))
    assert_message_or_refused(packed[:start] + noise + packed[end:])


@given(st.sampled_from(EXAMPLES), anything, st.data())
@settings(deadline=None, max_examples=examples(200))
def test_fuzz_with_a_wrong_field(message: Message, value: object, data: st.DataObject) -> None:
    array = parts(message)
    array[data.draw(st.integers(0, len(array) - 1))] = value
    assert_message_or_refused(wire(array))


@given(anything)
@example([1, 3, "i", "c", "d", 1, "failed", None, [[[[]]], "x"]])
@settings(deadline=None, max_examples=examples(150))
def test_fuzz_with_other_structures(value: object) -> None:
    assert_message_or_refused(wire(value))
    assert_message_or_refused(wire([1, 3, value]))


@pytest.mark.parametrize("depth", [10, 500, 1000, 1020, 1023, 1024, 5000])
def test_nesting_too_deep_for_python_is_refused_like_any_garbage(depth: int) -> None:
    deep = b"\x91" * depth + b"\xc0"
    for data in (deep, b"\x92" + deep + b"\x03", b"\x92\x01" + deep, b"\x93\x01\x06" + deep):
        assert_message_or_refused(data)
        with pytest.raises(MessageError):
            unpack(data)


def test_an_error_does_not_quote_a_megabyte() -> None:
    array = parts(GOLDEN["task"][0])
    for value in ("x" * 1_000_000, b"x" * 1_000_000, list(range(100_000))):
        array[4] = value
        with pytest.raises(MessageError) as caught:
            unpack(wire(array))
        assert len(str(caught.value)) < 200


def test_a_message_that_cannot_be_packed_does_not_spoil_the_next() -> None:
    """The packer is shared."""
    message, golden = GOLDEN["cancel"]
    for broken in (CancelMessage("x", "\ud800"), CancelMessage("x", object()), CancelMessage("x", 2**70)):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises((ValueError, TypeError, OverflowError)):
            pack(broken)
        assert pack(message).hex() == golden


def test_expect() -> None:
    message, _ = GOLDEN["cancel"]
    assert expect(message, CancelMessage) is message
    with pytest.raises(MessageError, match="Expected TaskMessage in this stream, got CancelMessage"):
        expect(message, TaskMessage)
