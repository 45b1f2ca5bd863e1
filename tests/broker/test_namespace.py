"""Opening a namespace: the first one decides, everybody else agrees or is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace_broker.connection import Link, Server, call
from headrace_broker.conversations import converse
from headrace_broker.errors import ConfigurationError, PartitionCountMismatch
from headrace_broker.keys import partition_of
from headrace_broker.namespace import open_namespace


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    link = Server(server_url).connect()
    yield link
    link.close()


def test_a_new_namespace_has_four_partitions(link: Link, namespace: str) -> None:
    assert converse(link, open_namespace(namespace)).partitions == 4


def test_an_existing_namespace_keeps_its_count(link: Link, namespace: str) -> None:
    assert converse(link, open_namespace(namespace, 7)).partitions == 7
    assert converse(link, open_namespace(namespace)).partitions == 7
    assert converse(link, open_namespace(namespace, 7)).partitions == 7


def test_another_count_is_refused(link: Link, namespace: str) -> None:
    converse(link, open_namespace(namespace, 2))
    with pytest.raises(PartitionCountMismatch, match=r"created with 2 partitions.*3 were asked for"):
        converse(link, open_namespace(namespace, 3))
    assert converse(link, open_namespace(namespace)).partitions == 2


def test_a_newer_format_is_refused(link: Link, namespace: str) -> None:
    opened = converse(link, open_namespace(namespace))
    call(link, "HSET", opened.keys.namespace, "format", 2)
    with pytest.raises(ConfigurationError, match="has format 2; this release reads format 1"):
        converse(link, open_namespace(namespace))


def test_what_somebody_else_wrote_is_refused(link: Link, namespace: str) -> None:
    opened = converse(link, open_namespace(namespace))
    call(link, "HSET", opened.keys.namespace, "partitions", "many")
    with pytest.raises(ConfigurationError, match="not what Headrace wrote"):
        converse(link, open_namespace(namespace))


@pytest.mark.parametrize("count", [0, -1, 1025])
def test_a_count_out_of_range_is_refused_before_anything_is_asked(count: int) -> None:
    with pytest.raises(ConfigurationError, match="1 to 1024 partitions"):
        next(open_namespace("ns", count))


@pytest.mark.parametrize("name", ["", "a b", "a:b", "x" * 65, "a{b}"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="A namespace is"):
        next(open_namespace(name))


def test_an_instance_lives_where_its_id_hashes_to(link: Link, namespace: str) -> None:
    opened = converse(link, open_namespace(namespace, 3))
    for instance in ("a", "order-42", "ü"):
        assert opened.of(instance).number == partition_of(instance, 3)
