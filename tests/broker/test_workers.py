"""Announcements of workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace_broker import wire
from headrace_broker.connection import Link, Server, call, exchange, raise_error
from headrace_broker.conversations import converse
from headrace_broker.errors import MessageError
from headrace_broker.keys import Keys
from headrace_broker.workers import FORGET_MS, WorkerRecord, announce, live_workers, withdraw

RECORD = WorkerRecord("host-7-ab", "host", 7, 2, 32, 1_700_000_000_000, ("default", "default:process"), ("a", "b"))
GOLDEN = bytes.fromhex(
    "9901a9686f73742d372d6162a4686f7374070220cf0000018bcfe5680092a764656661756c74"
    "af64656661756c743a70726f6365737392a161a162"
)


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    made = Server(server_url).connect()
    yield made
    made.close()


def now_ms(link: Link) -> int:
    seconds, micros = call(link, "TIME")
    return int(seconds) * 1000 + int(micros) // 1000


def say(link: Link, keys: Keys, record: WorkerRecord, at: int, lease_ms: int = 10_000) -> None:
    for reply in exchange(link, announce(keys, record, at, lease_ms)):
        raise_error(reply)


def test_golden_bytes() -> None:
    assert RECORD.to_wire() == GOLDEN
    assert WorkerRecord.from_wire(GOLDEN) == RECORD
    newer = wire.pack([*wire.unpack(GOLDEN), "of a newer release"])
    assert WorkerRecord.from_wire(newer) == RECORD


@pytest.mark.parametrize(
    "data", [b"", b"garbage", wire.pack([]), wire.pack([2, *RECORD]), wire.pack([1, "a"]), wire.pack([1, *[7] * 8])]
)
def test_other_bytes_are_no_announcement(data: bytes) -> None:
    with pytest.raises(MessageError):
        WorkerRecord.from_wire(data)


def test_an_announcement_lives_for_three_leases_and_can_be_withdrawn(link: Link, namespace: str) -> None:
    keys = Keys(namespace)
    assert converse(link, live_workers(keys)) == []
    other = RECORD._replace(keeper="another")
    for record in (RECORD, other):
        say(link, keys, record, now_ms(link))
    assert converse(link, live_workers(keys)) == [other, RECORD]
    assert 20_000 < call(link, "PTTL", keys.worker("another")) <= 30_000
    exchange(link, withdraw(keys, RECORD.keeper))
    assert converse(link, live_workers(keys)) == [other]


def test_one_that_expired_or_cannot_be_read_is_left_out(link: Link, namespace: str) -> None:
    keys = Keys(namespace)
    say(link, keys, RECORD, now_ms(link) - 40_000)
    say(link, keys, RECORD._replace(keeper="newer"), now_ms(link))
    call(link, "SET", keys.worker("newer"), wire.pack([99]), "PX", 1000)
    assert converse(link, live_workers(keys)) == []


def test_the_index_forgets_those_that_are_long_gone(link: Link, namespace: str) -> None:
    keys = Keys(namespace)
    now = now_ms(link)
    say(link, keys, RECORD, now - FORGET_MS - 60_000)
    say(link, keys, RECORD._replace(keeper="now"), now)
    assert call(link, "ZRANGE", keys.workers, 0, -1) == [b"now"]
