"""Start, signal and cancel, as scripts on each server: done once, durable when answered, refused with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from headrace_broker import messages, values
from headrace_broker.awaited import Awaited
from headrace_broker.codec import INLINE_LIMIT, PAYLOAD_LIMIT
from headrace_broker.connection import Link, Reply, Server, call
from headrace_broker.conversations import Conversation, converse
from headrace_broker.definitions import Definition, Node
from headrace_broker.errors import (
    InstanceExists,
    InstanceFinished,
    InstanceNotFound,
    InvalidInstanceId,
    InvalidRequest,
    PayloadTooLarge,
    UnknownSignal,
)
from headrace_broker.instances import index_member
from headrace_broker.messages import CancelMessage, SignalMessage, StartMessage
from headrace_broker.namespace import Namespace, open_namespace
from headrace_broker.registry import store_flow
from headrace_broker.requests import (
    STARTS_PER_SCRIPT,
    CancelRequest,
    Payload,
    SignalRequest,
    Started,
    StartRequest,
    hold_starts,
)
from support.scripts import preload


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    preload(server_url)
    link = Server(server_url).connect()
    yield link
    link.close()


@pytest.fixture
def opened(link: Link, namespace: str) -> Namespace:
    return converse(link, open_namespace(namespace, 2))


def start(instance: str = "order-1", **fields: Any) -> StartRequest:
    return StartRequest(instance, "orders", "d" * 32, fields.pop("payload", Payload(b"\x01")), **fields)


def entries(link: Link, stream: str) -> list[tuple[messages.Message, str]]:
    """(message, incarnation field) of each entry."""
    found = [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in call(link, "XRANGE", stream, "-", "+")]
    return [(messages.unpack(one[b"m"]), one.get(b"inc", b"").decode()) for one in found]


def end(link: Link, opened: Namespace, instance: str, status: str) -> None:
    call(link, "HSET", opened.of(instance).header(instance), "status", status)


def go_on(link: Link, conversation: Conversation[str], replies: list[Reply]) -> str:
    """The rest of a conversation, whose first commands were answered by `replies`."""
    try:
        while True:
            commands = conversation.send(replies)
            replies = [call(link, *command) for command in commands]
    except StopIteration as ended:
        return cast(str, ended.value)


def test_a_start_writes_header_indexes_and_entry(link: Link, opened: Namespace) -> None:
    request = start(actor="ann", traceparent="00-aa-bb-01")
    started = converse(link, request.hold(opened))
    assert (started.incarnation, started.flow, started.existing) == (request.incarnation, "orders", False)
    keys = opened.of("order-1")
    fields: list[bytes] = call(link, "HGETALL", keys.header("order-1"))
    header = dict(zip(fields[::2], fields[1::2], strict=True))
    assert header.pop(b"created").isdigit()
    assert header == {
        b"inc": request.incarnation.encode(),
        b"flow": b"orders",
        b"def": b"d" * 32,
        b"status": b"queued",
        b"run": b"1",
        b"actor": b"ann",
        b"trace": b"00-aa-bb-01",
    }
    member = [index_member(request.incarnation, "order-1").encode()]
    assert call(link, "ZRANGE", keys.by_status("queued"), 0, -1) == member
    assert call(link, "ZRANGE", keys.by_flow("orders"), 0, -1) == member
    ((message, _),) = entries(link, keys.starts)
    assert isinstance(message, StartMessage)
    assert (message.instance, message.value, message.actor) == ("order-1", values.inline(b"\x01"), "ann")


def test_a_repeated_start_gets_the_same_answer_and_makes_one_entry(link: Link, opened: Namespace) -> None:
    request = start()
    first = converse(link, request.hold(opened))
    assert converse(link, request.hold(opened)) == first
    assert converse(link, replace(request, incarnation="another").hold(opened)) == first
    assert len(entries(link, opened.of("order-1").starts)) == 1
    assert 0 < call(link, "PTTL", opened.of("order-1").request(request.request)) <= 600_000


def test_a_live_id_is_refused_or_taken(link: Link, opened: Namespace) -> None:
    first = converse(link, start().hold(opened))
    with pytest.raises(InstanceExists, match="'order-1' is live: flow 'orders', queued") as raised:
        converse(link, start().hold(opened))
    assert raised.value.ids == {"instance": "order-1", "flow": "orders", "status": "queued"}
    existing = converse(link, start(conflict="use_existing").hold(opened))
    assert (existing.incarnation, existing.existing) == (first.incarnation, True)
    assert len(entries(link, opened.of("order-1").starts)) == 1


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "terminated"])
def test_an_ended_id_may_be_used_again_and_its_old_run_is_archived(link: Link, opened: Namespace, status: str) -> None:
    first = converse(link, start().hold(opened))
    end(link, opened, "order-1", status)
    second = converse(link, start().hold(opened))
    keys = opened.of("order-1")
    assert second.incarnation != first.incarnation
    assert call(link, "HGET", keys.archive(first.incarnation), "status") == status.encode()
    assert call(link, "HGET", keys.header("order-1"), "inc") == second.incarnation.encode()


def test_many_start_in_one_round_trip_and_one_that_is_refused_stops_no_other(link: Link, opened: Namespace) -> None:
    live = converse(link, start("i7").hold(opened))
    sizes = {3: INLINE_LIMIT + 1}
    requests = [start(f"i{n}", payload=Payload(b"x" * sizes.get(n, 1))) for n in range(20)] + [start("i0")]
    assert _turns(link, hold_starts(opened, requests)) == 1
    answers = converse(link, hold_starts(opened, requests))  # a repetition
    refused = [place for place, answer in enumerate(answers) if isinstance(answer, InstanceExists)]
    assert refused == [7, 20]
    taken = converse(link, hold_starts(opened, [replace(one, conflict="use_existing") for one in requests]))
    for place, (request, one) in enumerate(zip(requests, taken, strict=True)):
        expected = {7: live.incarnation, 20: requests[0].incarnation}.get(place, request.incarnation)
        assert one == Started(expected, "orders", place in (7, 20))
    found = [message for keys in opened.all_partitions for message, _ in entries(link, keys.starts)]
    assert sorted(one.instance for one in found if isinstance(one, StartMessage)) == sorted(f"i{n}" for n in range(20))
    (large,) = (one for one in found if isinstance(one, StartMessage) and one.instance == "i3")
    reference = values.parse(large.value)
    assert isinstance(reference, values.Reference)
    assert call(link, "GET", reference.key) == b"x" * (INLINE_LIMIT + 1)


@pytest.mark.real_only
def test_so_many_starts_that_one_script_could_not_take_them(link: Link, opened: Namespace) -> None:
    requests = [start(f"i{n}") for n in range(4 * STARTS_PER_SCRIPT)]
    conversation = hold_starts(opened, requests)
    commands = next(conversation)
    conversation.close()
    assert len(commands) >= 4
    assert max(len(command) for command in commands) < 2500  # a script breaks beyond some 7,000 values
    assert converse(link, hold_starts(opened, requests)) == [
        Started(request.incarnation, "orders", False) for request in requests
    ]


def test_a_large_input_lies_at_a_key_of_its_own(link: Link, opened: Namespace) -> None:
    payload = b"x" * (INLINE_LIMIT + 1)
    request = start(payload=Payload(payload))
    converse(link, request.hold(opened))
    ((message, _),) = entries(link, opened.of("order-1").starts)
    assert isinstance(message, StartMessage)
    reference = values.parse(message.value)
    assert isinstance(reference, values.Reference)
    assert call(link, "GET", reference.key) == payload
    assert call(link, "PTTL", reference.key) == -1
    assert request.incarnation in reference.key


def test_a_payload_over_its_limit_is_refused(link: Link, opened: Namespace) -> None:
    with pytest.raises(PayloadTooLarge, match="the limit is 1,048,576"):
        converse(link, start(payload=Payload(b"x" * (PAYLOAD_LIMIT + 1))).hold(opened))
    assert entries(link, opened.of("order-1").starts) == []


@pytest.mark.parametrize("instance", ["", "a\nb", "x" * 257, "ü" * 129, "\ud800", 7])
def test_a_bad_id_is_refused_when_the_request_is_made(instance: Any) -> None:
    with pytest.raises(InvalidInstanceId):
        start(instance)
    with pytest.raises(InvalidInstanceId):
        CancelRequest(instance)
    with pytest.raises(InvalidInstanceId):
        SignalRequest(instance, "go", Payload(b"\x01"))


@pytest.mark.parametrize("actor", ["a" * 257, "\udc80", 5, None])
def test_a_text_is_text_and_not_too_long(actor: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^An actor (is|has)"):
        start(actor=actor)
    with pytest.raises(InvalidRequest, match=r"^An actor (is|has)"):
        SignalRequest("a", "go", Payload(b"\x01"), actor=actor)
    with pytest.raises(InvalidRequest, match="A reason has at most 4096 bytes; got 4097"):
        CancelRequest("a", reason="r" * 4097)


@pytest.mark.parametrize("name", ["", "a\nb", "a\u200bb", "s" * 257, "ä" * 129, 5, None])
def test_a_signals_name_is_checked_when_the_request_is_made(name: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"A signal's name (has|is)"):
        SignalRequest("a", name, Payload(b"\x01"))


def test_a_conflict_policy_is_one_there_is() -> None:
    with pytest.raises(InvalidRequest, match="is one of fail, use_existing; got 'x'"):
        start(conflict=cast(Any, "x"))


def test_a_signal_carries_the_incarnation_that_got_it(link: Link, opened: Namespace) -> None:
    started = converse(link, start().hold(opened))
    request = SignalRequest("order-1", "approval", Payload(b"true", "j"), actor="bob")
    assert converse(link, request.hold(opened)) == started.incarnation
    assert converse(link, request.hold(opened)) == started.incarnation  # a repetition
    ((message, incarnation),) = entries(link, opened.of("order-1").events)
    assert isinstance(message, SignalMessage)
    assert (message.name, message.value, message.actor) == ("approval", values.inline(b"true", "j"), "bob")
    assert incarnation == started.incarnation


def test_a_cancel_carries_its_reason(link: Link, opened: Namespace) -> None:
    started = converse(link, start().hold(opened))
    assert converse(link, CancelRequest("order-1", "too late").hold(opened)) == started.incarnation
    ((message, incarnation),) = entries(link, opened.of("order-1").events)
    assert isinstance(message, CancelMessage)
    assert (message.reason, incarnation) == ("too late", started.incarnation)


@pytest.mark.parametrize("size", [1, INLINE_LIMIT + 1])
def test_a_signal_to_an_unknown_instance_is_refused(link: Link, opened: Namespace, size: int) -> None:
    with pytest.raises(InstanceNotFound, match="No instance of id 'nobody'"):
        converse(link, SignalRequest("nobody", "go", Payload(b"x" * size)).hold(opened))


@pytest.mark.parametrize(
    ("status", "told"),
    [("completed", "has ended: completed"), ("failed", "has ended: failed"), ("cancelling", "is being cancelled")],
)
def test_an_ended_instance_takes_no_signals(link: Link, opened: Namespace, status: str, told: str) -> None:
    converse(link, start().hold(opened))
    end(link, opened, "order-1", status)
    for request in (SignalRequest("order-1", "go", Payload(b"\x01")), CancelRequest("order-1")):
        with pytest.raises(InstanceFinished, match=told):
            converse(link, request.hold(opened))


def test_a_large_signal_follows_an_id_that_is_used_anew_meanwhile(link: Link, opened: Namespace) -> None:
    converse(link, start().hold(opened))
    payload = b"x" * (INLINE_LIMIT + 1)
    conversation = SignalRequest("order-1", "go", Payload(payload)).hold(opened)
    commands = next(conversation)  # it asks for the incarnation
    seen = [call(link, *commands[0])]
    end(link, opened, "order-1", "completed")
    second = converse(link, start().hold(opened))
    assert go_on(link, conversation, seen) == second.incarnation
    ((message, incarnation),) = entries(link, opened.of("order-1").events)
    assert isinstance(message, SignalMessage)
    reference = values.parse(message.value)
    assert isinstance(reference, values.Reference)
    assert incarnation == second.incarnation
    assert second.incarnation in reference.key
    assert call(link, "GET", reference.key) == payload


def test_what_a_client_knows_of_definitions_saves_it_from_asking(link: Link, opened: Namespace) -> None:
    step = Node("signal", "wait", None, {"signal": "go", "timeout_ms": 0})
    definition = Definition("orders", (step,))
    converse(link, store_flow(opened.keys, definition))
    for instance in ("a", "b"):
        converse(link, StartRequest(instance, "orders", definition.digest, Payload(b"\x01")).hold(opened))
    awaited = Awaited()
    for instance, turns in (("a", 3), ("b", 1)):  # refused, definition, sent; then sent at once
        assert _turns(link, SignalRequest(instance, "go", Payload(b"\x01")).hold(opened, awaited)) == turns
        assert len(entries(link, opened.of(instance).events)) >= 1
    with pytest.raises(UnknownSignal, match="its flow 'orders' waits for go"):
        converse(link, SignalRequest("a", "stop", Payload(b"\x01")).hold(opened, awaited))
    converse(link, SignalRequest("a", "stop", Payload(b"\x01")).hold(opened))
    assert awaited.definitions("stop") == ()


def test_only_so_much_is_remembered_of_definitions(link: Link, opened: Namespace) -> None:
    awaited = Awaited()
    for number in range(100):
        converse(link, awaited.learn(opened.keys, "a", "d" * 32, f"go{number}"))
    assert [number for number in range(100) if awaited.definitions(f"go{number}")] == list(range(68, 100))
    for number in range(100):
        converse(link, awaited.learn(opened.keys, "a", f"{number:032x}", "go"))
    assert awaited.definitions("go") == tuple(f"{number:032x}" for number in range(68, 100))


def _turns(link: Link, conversation: Conversation[Any]) -> int:
    """How many round trips a conversation takes."""
    turns = 0
    replies: list[Reply] | None = None
    try:
        while True:
            commands = next(conversation) if replies is None else conversation.send(replies)
            replies = [call(link, *command) for command in commands]
            turns += 1
    except StopIteration:
        return turns
