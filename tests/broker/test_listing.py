"""Listing: merged over partitions, newest first, by page; cursors that hold while instances move."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from headrace_broker.connection import Command, Link, Server, call, exchange
from headrace_broker.conversations import converse
from headrace_broker.errors import ConfigurationError
from headrace_broker.instances import index_member
from headrace_broker.listing import Filter, Page, Position, decode_cursor, encode_cursor, list_instances
from headrace_broker.namespace import Namespace, open_namespace

START = 1_700_000_000_000


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    link = Server(server_url).connect()
    yield link
    link.close()


@pytest.fixture
def opened(link: Link, namespace: str) -> Namespace:
    return converse(link, open_namespace(namespace, 3))


def put(link: Link, opened: Namespace, instance: str, created: int, status: str = "running", flow: str = "f") -> None:
    keys = opened.of(instance)
    inc = f"inc-{instance}"
    header: Command = ("HSET", keys.header(instance), "inc", inc, "flow", flow, "def", "d", "status", status)
    member = index_member(inc, instance)
    exchange(
        link,
        [
            (*header, "created", created, "run", 1),
            ("ZADD", keys.by_status(status), created, member),
            ("ZADD", keys.by_flow(flow), created, member),
        ],
    )


def move(link: Link, opened: Namespace, instance: str, before: str, after: str) -> None:
    keys = opened.of(instance)
    member = index_member(f"inc-{instance}", instance)
    created = call(link, "ZSCORE", keys.by_status(before), member)
    exchange(
        link,
        [
            ("ZREM", keys.by_status(before), member),
            ("ZADD", keys.by_status(after), created, member),
            ("HSET", keys.header(instance), "status", after),
        ],
    )


def ids(page: Page) -> list[str]:
    return [item.id for item in page.items]


def all_pages(link: Link, opened: Namespace, which: Filter, limit: int) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    for _ in range(100):
        page = converse(link, list_instances(opened, which, limit=limit, cursor=cursor))
        found += ids(page)
        cursor = page.cursor
        if cursor is None:
            return found
    raise AssertionError("the pages do not end")


def test_an_empty_namespace_has_an_empty_page(link: Link, opened: Namespace) -> None:
    assert converse(link, list_instances(opened, Filter())) == Page((), None)


def test_newest_first_over_all_partitions_and_statuses(link: Link, opened: Namespace) -> None:
    for n in range(12):
        put(link, opened, f"i{n}", START + n, ("running", "completed", "waiting")[n % 3])
    assert ids(converse(link, list_instances(opened, Filter()))) == [f"i{n}" for n in reversed(range(12))]


@pytest.mark.parametrize("limit", [1, 4, 7, 1000])
def test_pages_give_each_instance_once_even_with_equal_times(link: Link, opened: Namespace, limit: int) -> None:
    expected = {f"i{n}" for n in range(25)}
    for n in range(25):
        put(link, opened, f"i{n}", START + n // 10, ("running", "completed")[n % 2])
    found = all_pages(link, opened, Filter(), limit)
    assert len(found) == 25
    assert set(found) == expected


def test_what_moves_between_pages_is_neither_lost_nor_shown_twice(link: Link, opened: Namespace) -> None:
    for n in range(10):
        put(link, opened, f"i{n}", START + n)
    first = converse(link, list_instances(opened, Filter(), limit=5))
    for n in range(10):
        move(link, opened, f"i{n}", "running", "completed")
    put(link, opened, "new", START + 100)
    second = converse(link, list_instances(opened, Filter(), limit=6, cursor=first.cursor))
    assert ids(first) + ids(second) == [f"i{n}" for n in reversed(range(10))]
    assert second.cursor is None


def test_filters(link: Link, opened: Namespace) -> None:
    for n in range(20):
        put(link, opened, f"i{n}", START + n, ("running", "failed")[n % 2], ("f", "g")[n // 10])
    both = Filter(status="failed", flow="g")
    assert all_pages(link, opened, both, 2) == ["i19", "i17", "i15", "i13", "i11"]
    assert len(all_pages(link, opened, Filter(status="running"), 3)) == 10
    assert len(all_pages(link, opened, Filter(flow="f"), 3)) == 10
    assert all_pages(link, opened, Filter(flow="none"), 3) == []


def test_the_smaller_index_is_read_when_both_filters_are_given(link: Link, opened: Namespace) -> None:
    for n in range(20):
        put(link, opened, f"i{n}", START + n, "completed", "rare" if n == 3 else "common")
    assert all_pages(link, opened, Filter(status="completed", flow="rare"), 1) == ["i3"]
    assert all_pages(link, opened, Filter(status="failed", flow="common"), 1) == []


def test_time_bounds_are_inclusive(link: Link, opened: Namespace) -> None:
    for n in range(10):
        put(link, opened, f"i{n}", START + n)
    at = datetime.fromtimestamp(START / 1000, UTC)
    bounds = Filter(since=at + timedelta(milliseconds=3), until=at + timedelta(milliseconds=6))
    assert all_pages(link, opened, bounds, 2) == ["i6", "i5", "i4", "i3"]


def test_an_older_use_of_an_id_is_found_in_the_archive(link: Link, opened: Namespace) -> None:
    put(link, opened, "i", START, "completed")
    keys = opened.of("i")
    call(link, "RENAME", keys.header("i"), keys.archive("inc-i"))
    exchange(
        link,
        [
            (
                "HSET",
                keys.header("i"),
                "inc",
                "other",
                "flow",
                "f",
                "def",
                "d",
                "status",
                "queued",
                "created",
                START + 1,
            ),
            ("ZADD", keys.by_status("queued"), START + 1, index_member("other", "i")),
        ],
    )
    page = converse(link, list_instances(opened, Filter()))
    assert [(item.id, item.incarnation, item.status) for item in page.items] == [
        ("i", "other", "queued"),
        ("i", "inc-i", "completed"),
    ]


def test_what_is_gone_or_unreadable_is_left_out(link: Link, opened: Namespace) -> None:
    put(link, opened, "i", START)
    put(link, opened, "gone", START + 1)
    call(link, "DEL", opened.of("gone").header("gone"))
    call(link, "ZADD", opened.all_partitions[0].by_status("running"), START + 2, "garbage")
    assert all_pages(link, opened, Filter(), 1) == ["i"]


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_bad_limit_is_refused(limit: int) -> None:
    with pytest.raises(ConfigurationError, match="1 to 1000 instances"):
        next(list_instances(Namespace.__new__(Namespace), Filter(), limit=limit))


@pytest.mark.parametrize("cursor", ["", "x", "!!", "kQE", "ä", encode_cursor(Position(1, b"m"))[:-3]])
def test_a_bad_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ConfigurationError, match="Not a cursor"):
        decode_cursor(cursor)


def test_a_cursor_comes_back_as_it_was() -> None:
    for position in (Position(0, b""), Position(2**45, "inc ü".encode()), Position(5, bytes(range(256)))):
        assert decode_cursor(encode_cursor(position)) == position


def test_a_bad_status_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="A status is one of queued, running"):
        Filter(status="done")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
