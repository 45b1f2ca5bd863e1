"""Task streams: reading, leases, settling, on every server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace_broker import tasks
from headrace_broker.connection import Link, Reply, Server, call, exchange
from headrace_broker.conversations import converse
from headrace_broker.errors import ServerError
from headrace_broker.keys import GROUP, Keys
from headrace_broker.tasks import Delivery, Settlement, Source

ME, OTHER = "keeper.1", "keeper.2"


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    made = Server(server_url).connect()
    yield made
    made.close()


@pytest.fixture
def wanted(link: Link, namespace: str) -> tuple[Source, ...]:
    """Two streams in each of two partitions, with their group."""
    keys = Keys(namespace)
    made = tasks.sources([keys.partition(0), keys.partition(1)], ["b", "a"])
    converse(link, tasks.ensure_groups(keys, made))
    return made


def fill(link: Link, source: Source, count: int, first: int = 1) -> list[str]:
    entries = [f"{number}-0" for number in range(first, first + count)]
    exchange(link, [("XADD", source.key, entry, "m", f"task {entry}") for entry in entries])
    return entries


def take(link: Link, wanted: tuple[Source, ...], count: int, consumer: str = ME) -> list[Delivery]:
    table = {source.key.encode(): source for source in wanted}
    return tasks.parse(call(link, *tasks.read(consumer, wanted, count)), table)


def leases(link: Link, source: Source) -> list[str]:
    return [row[0].decode() for row in call(link, "XPENDING", source.key, GROUP, "-", "+", 1000)]


def test_sources_go_by_partition_and_name(wanted: tuple[Source, ...], namespace: str) -> None:
    assert [(source.partition.number, source.stream) for source in wanted] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert wanted[0].key == Keys(namespace).partition(0).tasks("a")


def test_queues_are_entered(link: Link, wanted: tuple[Source, ...], namespace: str) -> None:
    assert call(link, "SMEMBERS", Keys(namespace).queues) in ([b"a", b"b"], [b"b", b"a"])


@pytest.mark.real_only  # fakeredis closes the connection after an error
def test_groups_are_made_once(link: Link, wanted: tuple[Source, ...], namespace: str) -> None:
    fill(link, wanted[0], 1)
    converse(link, tasks.ensure_groups(Keys(namespace), wanted))
    assert len(take(link, wanted, 10)) == 1


def test_count_is_for_each_stream(link: Link, wanted: tuple[Source, ...]) -> None:
    for source in wanted[:3]:
        fill(link, source, 5)
    found = take(link, wanted, 2)
    assert [(delivery.source, delivery.entry) for delivery in found] == [
        (source, entry) for source in wanted[:3] for entry in ("1-0", "2-0")
    ]
    assert found[0].raw == b"task 1-0"


def test_a_blocking_read_returns_at_once_what_is_there(link: Link, wanted: tuple[Source, ...]) -> None:
    fill(link, wanted[2], 3)
    reply = call(link, *tasks.read_blocking(ME, wanted, 1000))
    (found,) = tasks.parse(reply, {source.key.encode(): source for source in wanted})
    assert (found.source, found.entry) == (wanted[2], "1-0")
    assert tasks.parse(call(link, *tasks.read(ME, wanted[:2], 1)), {}) == []


def test_an_entry_without_a_message_is_delivered_as_such(link: Link, wanted: tuple[Source, ...]) -> None:
    call(link, "XADD", wanted[0].key, "1-0", "x", "y")
    call(link, "XADD", wanted[0].key, "2-0", "x", "y", "m", "late")
    assert [delivery.raw for delivery in take(link, wanted, 5)] == [None, b"late"]


def test_what_a_consumer_holds_without_knowing_it_is_found_page_by_page(link: Link, wanted: tuple[Source, ...]) -> None:
    fill(link, wanted[0], 600)
    fill(link, wanted[3], 2)
    take(link, wanted, 1000)
    known = {(wanted[0], "7-0")}
    found = converse(link, tasks.read_pending(ME, wanted, lambda each: (each.source, each.entry) in known))
    assert len(found) == 601
    assert "7-0" not in {delivery.entry for delivery in found if delivery.source == wanted[0]}
    assert converse(link, tasks.read_pending(OTHER, wanted, lambda each: False)) == []


def test_a_renewal_names_what_is_still_leased(link: Link, wanted: tuple[Source, ...]) -> None:
    source = wanted[0]
    fill(link, source, 4)
    take(link, wanted, 3)
    tasks.check_settled(exchange(link, tasks.settle(source.partition, [Settlement(None, source, "2-0")])))
    commands = tasks.renew(ME, source.key, ["1-0", "2-0", "3-0", "4-0"])
    assert tasks.renewed(exchange(link, commands)) == {"1-0", "3-0"}
    (row, _) = call(link, "XPENDING", source.key, GROUP, "-", "+", 10)
    assert row[3] == 1, "a renewal is no delivery"


def test_many_leases_are_renewed_in_chunks(link: Link, wanted: tuple[Source, ...]) -> None:
    entries = fill(link, wanted[0], 1100)
    take(link, wanted, 2000)
    commands = tasks.renew(ME, wanted[0].key, entries)
    assert len(commands) == 3
    assert tasks.renewed(exchange(link, commands)) == set(entries)


@pytest.mark.real_only
def test_a_vanished_group_leases_nothing(link: Link, wanted: tuple[Source, ...]) -> None:
    call(link, "DEL", wanted[0].key)
    assert tasks.renewed(exchange(link, tasks.renew(ME, wanted[0].key, ["1-0"]))) == frozenset()
    assert converse(link, tasks.pending(ME, wanted)) == []
    reply = exchange(link, [tasks.read(ME, wanted, 1)])[0]
    assert isinstance(reply, ServerError)
    assert tasks.is_no_group(reply)


def test_others_see_what_a_consumer_holds(link: Link, wanted: tuple[Source, ...]) -> None:
    fill(link, wanted[0], 600)
    fill(link, wanted[1], 1)
    take(link, wanted, 1000)
    fill(link, wanted[0], 1, first=700)
    take(link, wanted, 10, consumer=OTHER)
    found = converse(link, tasks.pending(ME, wanted))
    assert len(found) == 601
    assert found[0] == Delivery(wanted[0], "1-0", b"task 1-0")
    assert [each.entry for each in converse(link, tasks.pending(OTHER, wanted))] == ["700-0"]


def test_settling_writes_values_and_events_and_takes_entries_out(link: Link, wanted: tuple[Source, ...]) -> None:
    first, second = wanted[:2]
    partition = first.partition
    fill(link, first, 3)
    fill(link, second, 1)
    take(link, wanted, 10)
    key = partition.value("inc", "x")
    batch = [
        Settlement(b"started"),
        Settlement(b"one", first, "1-0", (key, b"large")),
        Settlement(b"two", second, "1-0"),
        Settlement(None, first, "3-0"),
    ]
    replies = exchange(link, tasks.settle(partition, batch))
    tasks.check_settled(replies)
    events = [fields[1] for _, fields in call(link, "XRANGE", partition.events, "-", "+")]
    assert events == [b"started", b"one", b"two"]
    assert call(link, "GET", key) == b"large"
    assert 0 < call(link, "PTTL", key) <= tasks.VALUE_LIFE_MS
    assert leases(link, first) == ["2-0"]
    assert call(link, "XLEN", first.key) == 1
    assert call(link, "XLEN", second.key) == 0


@pytest.mark.parametrize(
    "replies",
    [
        [b"OK", ServerError("OOM"), ServerError("EXECABORT")],
        [b"OK", b"QUEUED", [ServerError("WRONGTYPE")]],
        [b"OK", b"QUEUED", None],
    ],
)
def test_a_batch_that_was_not_applied_is_an_error(replies: list[Reply]) -> None:
    with pytest.raises(ServerError):
        tasks.check_settled(replies)


@pytest.mark.real_only
def test_a_consumer_goes_only_when_nothing_is_pending(link: Link, wanted: tuple[Source, ...]) -> None:
    fill(link, wanted[0], 1)
    take(link, wanted, 1)
    assert converse(link, tasks.drop_consumer(ME, wanted)) == [wanted[0]]
    assert leases(link, wanted[0]) == ["1-0"]
    tasks.check_settled(exchange(link, tasks.settle(wanted[0].partition, [Settlement(None, wanted[0], "1-0")])))
    call(link, "DEL", wanted[1].key)
    assert converse(link, tasks.drop_consumer(ME, wanted)) == []
    assert call(link, "XINFO", "CONSUMERS", wanted[0].key, GROUP) == []
