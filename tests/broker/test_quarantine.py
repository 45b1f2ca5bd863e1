"""The quarantine: kept whole as far as that is bounded, listed over partitions, put back once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from headrace_broker import messages, quarantine
from headrace_broker.connection import Link, Server, call, exchange, raise_error
from headrace_broker.conversations import Conversation, converse
from headrace_broker.errors import (
    ConfigurationError,
    InstanceFinished,
    InstanceNotFound,
    QuarantineEntryNotFound,
    QuarantineRetryRefused,
)
from headrace_broker.messages import CancelMessage, SignalMessage
from headrace_broker.namespace import Namespace, open_namespace
from headrace_broker.quarantine import Quarantined, RetryRequest, list_quarantine, read_quarantined
from support.scripts import preload

CANCEL = messages.pack(CancelMessage("c"))


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    preload(server_url)
    link = Server(server_url).connect()
    yield link
    link.close()


@pytest.fixture
def opened(link: Link, namespace: str) -> Namespace:
    return converse(link, open_namespace(namespace, 2))


def put(link: Link, opened: Namespace, number: int = 0, **fields: Any) -> str:
    """An entry as an owner writes it; its id for people."""
    known: dict[str, Any] = {
        "source": "events",
        "entry": "1-1",
        "instance": "c",
        "reason": "why",
        "raw": {b"m": CANCEL},
    }
    (id,) = exchange(link, [quarantine.write(opened.all_partitions[number], **(known | fields))])
    return f"{number}:{raise_error(id).decode()}"


def read(link: Link, opened: Namespace, id: str) -> Quarantined:
    return converse(link, read_quarantined(opened, id))


def retry(link: Link, opened: Namespace, id: str, request: str = "req") -> str:
    return converse(link, RetryRequest(read(link, opened, id), request).hold(opened))


def listed(link: Link, conversation: Conversation[quarantine.QuarantinePage]) -> tuple[list[str], str | None]:
    page = converse(link, conversation)
    return [item.id for item in page.items], page.cursor


def test_an_entry_comes_back_as_it_was(link: Link, opened: Namespace) -> None:
    raw = {b"m": CANCEL, b"\xff": b"\x00" * 16_000}
    found = read(link, opened, put(link, opened, 1, raw=raw))
    assert (found.source, found.source_entry, found.instance, found.reason) == ("events", "1-1", "c", "why")
    assert (found.raw, found.cut, found.parked, found.partition) == (raw, 0, False, 1)
    assert found.message() == CancelMessage("c")
    assert found.obstacle() is None


@pytest.mark.parametrize(
    "raw", [{b"m": b"x" * 30_000}, {str(n).encode(): b"" for n in range(100)}, {b"n" * 30_000: b""}]
)
def test_a_large_one_is_cut_and_says_so(link: Link, opened: Namespace, raw: dict[bytes, bytes]) -> None:
    found = read(link, opened, put(link, opened, raw=raw))
    assert found.cut == sum(map(len, raw)) + sum(map(len, raw.values()))
    assert sum(map(len, found.raw)) + sum(map(len, found.raw.values())) < 16 * 4200
    with pytest.raises(QuarantineRetryRefused, match="was cut"):
        RetryRequest(found)


def test_pages_go_over_all_partitions_newest_first(link: Link, opened: Namespace) -> None:
    ids: list[str] = []
    for number, entry in ((0, "1-0"), (1, "1-0"), (0, "2-0"), (1, "3-0"), (1, "3-1"), (0, "5-0")):
        call(link, "XADD", opened.all_partitions[number].quarantine, entry, "reason", "x")
        ids.append(f"{number}:{entry}")
    ids.reverse()
    assert listed(link, list_quarantine(opened)) == (ids, None)
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(4):
        page, cursor = listed(link, list_quarantine(opened, limit=2, cursor=cursor))
        seen += page
    assert (seen, cursor) == (ids, None)


@pytest.mark.parametrize("cursor", ["", "x", "0", "9:1-1", "0:1", "0:1-1 ", "-1:1-1"])
def test_a_bad_id_or_cursor(link: Link, opened: Namespace, cursor: str) -> None:
    with pytest.raises(ConfigurationError, match="<partition>:<id>"):
        converse(link, list_quarantine(opened, cursor=cursor))
    with pytest.raises(ConfigurationError, match="<partition>:<id>"):
        read(link, opened, cursor)


def test_what_a_strange_hand_put_there_is_listed(link: Link, opened: Namespace) -> None:
    call(link, "XADD", opened.all_partitions[0].quarantine, "18446744073709551615-1", "cut", "many", b"\xff", b"\xff")
    (found,) = converse(link, list_quarantine(opened)).items
    assert (found.source, found.reason, found.cut) == ("", "", 1)
    assert found.obstacle() is not None


@pytest.mark.parametrize("source", ["events", "starts"])
def test_retry_moves_it_back_once(link: Link, opened: Namespace, source: str) -> None:
    keys = opened.all_partitions[1]
    id = put(link, opened, 1, source=source, raw={b"m": CANCEL, b"inc": b"abc"})
    entry = read(link, opened, id)
    first = converse(link, RetryRequest(entry, "req").hold(opened))
    again = converse(link, RetryRequest(entry, "req").hold(opened))
    assert first == again, "a repeated request gets the first answer"
    stream = keys.starts if source == "starts" else keys.events
    assert call(link, "XRANGE", stream, "-", "+") == [[first.encode(), [b"m", CANCEL, b"inc", b"abc"]]]
    assert call(link, "XLEN", keys.quarantine) == 0
    with pytest.raises(QuarantineEntryNotFound, match=id):
        converse(link, RetryRequest(entry, "another").hold(opened))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"parked": True}, "headrace unblock c"),
        ({"source": "timers", "raw": {b"timer": b"x"}}, "no place"),
        ({"source": "leases"}, "no place"),
        ({"source": "repair"}, "no place"),
        ({"source": "events", "raw": {b"stream": b"default", b"raw": b"x"}}, "no place"),
        ({"source": "signals", "raw": {b"foo": b"bar"}}, "no raw signal"),
        ({"source": "signals", "raw": {b"instance": b"\xff", b"name": b"x"}}, "no raw signal"),
    ],
)
def test_what_cannot_go_back(link: Link, opened: Namespace, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(QuarantineRetryRefused, match=reason):
        RetryRequest(read(link, opened, put(link, opened, **fields)))


SIGNAL = {b"instance": b"c", b"name": b"go", b"payload": b'{"a": 1}'}


class TestRawSignals:
    @pytest.fixture
    def put_signal(self, link: Link, opened: Namespace) -> str:
        """In the partition that its instance lives in, as the owner does."""
        return put(link, opened, opened.of("c").number, source="signals", raw=SIGNAL)

    @pytest.mark.leaves_keys("header")
    def test_it_goes_to_its_instance_as_a_message(self, link: Link, opened: Namespace, put_signal: str) -> None:
        keys = opened.of("c")
        call(link, "HSET", keys.header("c"), "inc", "abc", "status", "waiting")
        retry(link, opened, put_signal)
        ((_, fields),) = call(link, "XRANGE", keys.events, "-", "+")
        assert messages.unpack(fields[1]) == SignalMessage("c", "go", b'j{"a": 1}', actor="raw")
        assert fields[2:] == [b"inc", b"abc"]
        assert call(link, "XLEN", keys.quarantine) == 0

    @pytest.mark.leaves_keys("header")
    def test_it_stays_while_nobody_takes_it(self, link: Link, opened: Namespace, put_signal: str) -> None:
        keys = opened.of("c")
        with pytest.raises(InstanceNotFound, match="stays"):
            retry(link, opened, put_signal)
        call(link, "HSET", keys.header("c"), "inc", "abc", "status", "failed")
        with pytest.raises(InstanceFinished, match="stays"):
            retry(link, opened, put_signal)
        assert call(link, "XLEN", keys.quarantine) == 1
        assert call(link, "XLEN", keys.events) == 0


def test_drop(link: Link, opened: Namespace) -> None:
    ids = [put(link, opened, number) for number in (0, 1, 0)]
    assert converse(link, quarantine.drop_quarantined(opened, [ids[0], ids[1], "0:1-1"])) == 2
    assert listed(link, list_quarantine(opened))[0] == [ids[2]]
    assert converse(link, quarantine.count_quarantine(opened)) == 1
    assert converse(link, quarantine.drop_quarantined(opened, [])) == 0
