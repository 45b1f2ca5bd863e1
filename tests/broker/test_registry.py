"""Registered flows: stored idempotently, current by the highest version."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace_broker.connection import Link, Server, call
from headrace_broker.conversations import converse
from headrace_broker.definitions import Definition, Node
from headrace_broker.errors import FlowNotFound, MessageError
from headrace_broker.keys import Keys
from headrace_broker.registry import (
    FlowRecord,
    current_flow,
    flow_names,
    list_flows,
    load_definition,
    store_flow,
)
from support.scripts import preload


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    preload(server_url)
    link = Server(server_url).connect()
    yield link
    link.close()


@pytest.fixture
def keys(namespace: str) -> Keys:
    return Keys(namespace)


def define(flow: str = "orders", ms: int = 1) -> Definition:
    return Definition(flow, (Node("delay", "d", None, {"ms": ms}),))


def test_a_stored_definition_is_current_and_can_be_loaded(link: Link, keys: Keys) -> None:
    definition = define()
    assert converse(link, store_flow(keys, definition, version=3, schema='{"type":"object"}'))
    record = converse(link, current_flow(keys, "orders"))
    assert record == FlowRecord("orders", 3, definition.digest, '{"type":"object"}')
    assert converse(link, load_definition(keys, record.digest)) == definition


def test_storing_again_changes_nothing(link: Link, keys: Keys) -> None:
    assert converse(link, store_flow(keys, define()))
    assert converse(link, store_flow(keys, define()))
    assert converse(link, flow_names(keys)) == ["orders"]


def test_an_equal_or_higher_version_takes_over(link: Link, keys: Keys) -> None:
    converse(link, store_flow(keys, define(ms=1), version=9))
    assert converse(link, store_flow(keys, define(ms=2), version=9))
    assert converse(link, current_flow(keys, "orders")).digest == define(ms=2).digest
    assert converse(link, store_flow(keys, define(ms=3), version=10))
    assert converse(link, current_flow(keys, "orders")) == FlowRecord("orders", 10, define(ms=3).digest)


def test_a_lower_version_is_stored_but_not_current(link: Link, keys: Keys) -> None:
    converse(link, store_flow(keys, define(ms=1), version=10))
    assert not converse(link, store_flow(keys, define(ms=2), version=9))
    assert converse(link, current_flow(keys, "orders")).version == 10
    assert converse(link, load_definition(keys, define(ms=2).digest)) is not None


def test_an_unknown_flow_lists_those_there_are(link: Link, keys: Keys) -> None:
    with pytest.raises(FlowNotFound, match=r"there are none\. Start a worker"):
        converse(link, current_flow(keys, "order"))
    for name in ("orders", "refunds"):
        converse(link, store_flow(keys, define(name)))
    with pytest.raises(FlowNotFound, match=r"No flow named 'order' .* there are: orders, refunds\."):
        converse(link, current_flow(keys, "order"))


def test_flows_are_listed_by_name(link: Link, keys: Keys) -> None:
    for name in ("zeta", "alpha"):
        converse(link, store_flow(keys, define(name), version=2))
    assert [(flow.name, flow.version) for flow in converse(link, list_flows(keys))] == [("alpha", 2), ("zeta", 2)]


def test_a_missing_definition_is_none_and_an_unreadable_one_an_error(link: Link, keys: Keys) -> None:
    call(link, "SET", keys.definition("bad"), b"\x00")
    assert converse(link, load_definition(keys, "none")) is None
    with pytest.raises(MessageError):
        converse(link, load_definition(keys, "bad"))
