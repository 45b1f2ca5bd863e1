"""One instance from outside: what it waits for, why it failed, what happened."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from headrace_broker import history, records, wire
from headrace_broker.connection import Link, Server, call, exchange
from headrace_broker.conversations import converse
from headrace_broker.definitions import Definition, Node, TaskCall
from headrace_broker.errors import InstanceNotFound, InvalidInstanceId, InvalidRequest
from headrace_broker.keys import PartitionKeys
from headrace_broker.namespace import Namespace, open_namespace
from headrace_broker.queries import HistoryReader, read_header, read_history, read_slot, read_snapshot
from headrace_broker.records import Token
from headrace_broker.registry import store_flow
from headrace_broker.snapshots import Problem, Waiting, milliseconds, moment
from headrace_broker.workers import WorkerRecord, announce
from support.scripts import preload

DEFINITION = Definition(
    "orders",
    (
        Node("task", "charge", 1, {"call": TaskCall("pay", queue="payments").to_wire()}),
        Node("signal", "wait_approval", 2, {"signal": "approval"}),
        Node("delay", "delay", None, {"ms": 5}),
    ),
)
DUE = 1_700_000_060_000


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    preload(server_url)
    link = Server(server_url).connect()
    yield link
    link.close()


@pytest.fixture
def opened(link: Link, namespace: str) -> Namespace:
    opened = converse(link, open_namespace(namespace, 2))
    converse(link, store_flow(opened.keys, DEFINITION))
    return opened


def put(link: Link, opened: Namespace, *tokens: Token, **header: str | bytes | int) -> PartitionKeys:
    keys = opened.of("o1")
    fields: dict[str, str | bytes | int] = {
        "inc": "AAA",
        "flow": "orders",
        "def": DEFINITION.digest,
        "status": "running",
        "created": 1_700_000_000_000,
    }
    fields |= header
    commands = [("HSET", keys.header("o1"), *(part for pair in fields.items() for part in pair))]
    commands += [
        ("HSET", keys.state("AAA"), records.token_field(number), records.pack(token))
        for number, token in enumerate(tokens)
    ]
    exchange(link, commands)
    return keys


def test_what_it_waits_for_has_names(link: Link, opened: Namespace) -> None:
    put(
        link,
        opened,
        Token(0, 0, 0, "in", records.BACKOFF, 1, attempt=2, timer=1, due=DUE),
        Token(1, 0, 0, "in", records.AWAITING, 1, timer=2, due=DUE),
        Token(1, 0, 0, "in", records.AWAITING, 1),
        Token(2, 0, 0, "in", records.SLEEPING, 1, timer=3, due=DUE),
        Token(0, 0, 0, "in", records.FAILED, 1),
    )
    snapshot = converse(link, read_snapshot(opened, "o1"))
    assert [str(wait) for wait in snapshot.waiting_for] == [
        *("retry:charge", "signal:approval", "signal:approval", "timer:delay"),
    ]
    assert snapshot.waiting_for[1] == Waiting("signal", "approval", "wait_approval", moment(DUE))
    assert snapshot.waiting_for[2].until is None
    assert snapshot.active == ()


def test_a_task_that_nobody_serves_is_waited_for(link: Link, opened: Namespace) -> None:
    put(link, opened, Token(0, 0, 0, "in", records.DISPATCHED, 1, dispatch="0-a-1-1", attempt=1))
    assert [str(wait) for wait in converse(link, read_snapshot(opened, "o1")).waiting_for] == ["worker:pay"]
    seconds, micros = call(link, "TIME")
    now = int(seconds) * 1000 + int(micros) // 1000
    for streams, tasks, served in (
        (("default",), ("pay",), False),
        (("payments",), ("other",), False),
        (("payments",), ("pay",), True),
    ):
        record = WorkerRecord("k1", "host", 1, 1, 1, now, streams, tasks)
        exchange(link, announce(opened.keys, record, now, 10_000))
        snapshot = converse(link, read_snapshot(opened, "o1"))
        assert [str(wait) for wait in snapshot.active] == (["task:pay"] if served else [])
        assert [str(wait) for wait in snapshot.waiting_for] == ([] if served else ["worker:pay"])


def test_nodes_have_numbers_where_the_definition_is_missing(link: Link, opened: Namespace) -> None:
    put(link, opened, Token(1, 0, 0, "in", records.AWAITING, 1), **{"def": "f" * 32})
    assert [str(wait) for wait in converse(link, read_snapshot(opened, "o1")).waiting_for] == ["signal:#1"]


def test_a_failure_has_its_parts(link: Link, opened: Namespace) -> None:
    error = wire.pack(["ValueError", "negative", "Traceback …", "charge"])
    put(link, opened, status="failed", ended=DUE, error=error, actor="ann")
    snapshot = converse(link, read_snapshot(opened, "o1"))
    assert snapshot.error == Problem("ValueError", "negative", "Traceback …", "charge")
    assert snapshot.ended == datetime(2023, 11, 14, 22, 14, 20, tzinfo=UTC)
    assert (snapshot.has_ended, snapshot.actor, snapshot.run) == (True, "ann", 1)


@pytest.mark.parametrize("status", ["cancelled", "blocked"])
def test_a_cancel_and_a_block_have_a_reason(link: Link, opened: Namespace, status: str) -> None:
    put(link, opened, status=status, error=wire.pack(["too late"]))
    snapshot = converse(link, read_header(opened, "o1"))
    assert (snapshot.error, snapshot.reason) == (None, "too late")


def test_an_older_incarnation_is_read_from_the_archive(link: Link, opened: Namespace) -> None:
    keys = put(link, opened, status="completed")
    call(link, "RENAME", keys.header("o1"), keys.archive("AAA"))
    put(link, opened, inc="BBB")
    assert converse(link, read_header(opened, "o1")).incarnation == "BBB"
    assert converse(link, read_snapshot(opened, "o1", "AAA")).status == "completed"
    with pytest.raises(InstanceNotFound):
        converse(link, read_header(opened, "o1", "CCC"))


def test_unknown_and_bad_ids(link: Link, opened: Namespace) -> None:
    for read in (read_header, read_snapshot, read_history):
        with pytest.raises(InstanceNotFound, match="No instance of id 'o1' is known"):
            converse(link, read(opened, "o1"))
        with pytest.raises(InvalidInstanceId):
            converse(link, read(opened, ""))


def test_history_is_read_over_many_chunks_with_nodes_by_name(link: Link, opened: Namespace) -> None:
    keys = put(link, opened)
    chunks = [history.pack([(DUE + n, history.DISPATCHED, 0, 0, 0, n, 1)]) for n in range(600)]
    exchange(
        link, [("RPUSH", keys.history("AAA"), *chunks), ("RPUSH", keys.history("AAA"), history.pack([(DUE, 99, 7)]))]
    )
    events = converse(link, read_history(opened, "o1"))
    assert len(events) == 601
    assert [event.fields["step"] for event in events[:600]] == list(range(600))
    assert (events[0].kind, events[0].node, events[0].at) == ("dispatched", "charge", moment(DUE))
    assert (events[600].kind, events[600].node) == ("unknown_99", None)


def steps_after(link: Link, opened: Namespace, reader: HistoryReader) -> list[int]:
    steps: list[int] = []
    while True:
        page = converse(link, reader.read(opened))
        steps += [event.fields["step"] for event in page.events]
        if not page.more:
            return steps


def chunk(*steps: int) -> bytes:
    return history.pack([(DUE, history.DISPATCHED, 0, 0, 0, step, 1) for step in steps])


def test_a_history_goes_on_behind_the_position_of_any_event(link: Link, opened: Namespace) -> None:
    keys = put(link, opened)
    call(link, "RPUSH", keys.history("AAA"), chunk(0), chunk(1, 2, 3), *map(chunk, range(4, 300)))
    events = converse(link, read_history(opened, "o1"))
    assert len({event.position for event in events}) == 300
    for step in (0, 1, 2, 3, 4, 255, 298, 299):
        reader = HistoryReader("o1", after=events[step].position)
        assert steps_after(link, opened, reader) == list(range(step + 1, 300))
        assert steps_after(link, opened, reader) == []
    call(link, "RPUSH", keys.history("AAA"), chunk(300, 301))
    assert steps_after(link, opened, reader) == [300, 301]


def test_a_position_leads_to_the_use_of_the_id_that_it_is_of(link: Link, opened: Namespace) -> None:
    keys = put(link, opened, status="completed")
    call(link, "RPUSH", keys.history("AAA"), chunk(0), chunk(1))
    position = converse(link, read_history(opened, "o1"))[0].position
    call(link, "RENAME", keys.header("o1"), keys.archive("AAA"))
    put(link, opened, inc="BBB")
    assert steps_after(link, opened, HistoryReader("o1", after=position)) == [1]
    with pytest.raises(InvalidRequest, match="belongs to another use of the id 'o1'"):
        HistoryReader("o1", "BBB", after=position)


@pytest.mark.parametrize("position", ["", "0", "AAA:1", "AAA:1.-1", "AAA:1.2 ", "A A:1.2", "AAA:1." + "9" * 30, 7])
def test_what_is_no_position_is_told_at_once(position: Any) -> None:
    with pytest.raises(InvalidRequest, match="A position is what an event of a history carries"):
        HistoryReader("o1", after=position)


def test_what_takes_the_place_of_a_history_that_a_failover_lost_is_read(link: Link, opened: Namespace) -> None:
    keys = put(link, opened)
    call(link, "RPUSH", keys.history("AAA"), chunk(0), chunk(1), chunk(2, 3))
    reader = HistoryReader("o1")
    assert steps_after(link, opened, reader) == [0, 1, 2, 3]
    resumed = HistoryReader("o1", after=converse(link, read_history(opened, "o1"))[2].position)
    call(link, "LTRIM", keys.history("AAA"), 0, 0)
    assert steps_after(link, opened, reader) == steps_after(link, opened, resumed) == []
    call(link, "RPUSH", keys.history("AAA"), chunk(11, 12))
    assert steps_after(link, opened, reader) == steps_after(link, opened, resumed) == [11, 12]


def test_the_end_is_seen_only_with_all_that_came_before_it(link: Link, opened: Namespace) -> None:
    keys = put(link, opened)
    call(link, "RPUSH", keys.history("AAA"), *map(chunk, range(256)))
    reader = HistoryReader("o1")
    page = converse(link, reader.read(opened))
    assert (len(page.events), page.more, page.ended) == (256, True, False)
    put(link, opened, status="completed")
    page = converse(link, reader.read(opened))
    assert (len(page.events), page.more, page.ended) == (0, False, True)


def test_a_slot_is_read_as_it_lies_there(link: Link, opened: Namespace) -> None:
    keys = put(link, opened)
    call(link, "HSET", keys.outputs("AAA"), "0.0", b"m\x01")
    assert converse(link, read_slot(keys, "AAA", "0.0")) == b"m\x01"
    assert converse(link, read_slot(keys, "AAA", "none")) is None


def test_times_come_back_as_they_were() -> None:
    for ms in (0, 1, DUE, 2**42 + 7):
        assert milliseconds(moment(ms)) == ms
