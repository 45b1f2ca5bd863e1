"""Opening a namespace: the first one decides, everybody else agrees or is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from headrace_broker.connection import Command, Link, Reply, Server, call
from headrace_broker.conversations import converse
from headrace_broker.errors import ConfigurationError, EvictionPolicyRefused, PartitionCountMismatch
from headrace_broker.keys import partition_of
from headrace_broker.namespace import enter_namespace, open_namespace


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


class Counting:
    """A link that counts exchanges."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.exchanges = 0

    def send(self, commands: Sequence[Command]) -> None:
        self.exchanges += 1
        self._link.send(commands)

    def receive(self, count: int) -> list[Reply]:
        return self._link.receive(count)

    def wait(self, seconds: float) -> bool:
        return self._link.wait(seconds)

    def close(self) -> None:
        self._link.close()


def test_a_client_enters_and_checks_the_server_in_one_exchange(link: Link, namespace: str) -> None:
    counting = Counting(link)
    assert converse(counting, enter_namespace(namespace)).partitions == 4
    counting.exchanges = 0
    assert converse(counting, enter_namespace(namespace)).partitions == 4
    assert counting.exchanges == 1


def test_a_client_keeps_the_count_there_is(link: Link, namespace: str) -> None:
    converse(link, open_namespace(namespace, 7))
    assert converse(link, enter_namespace(namespace)).partitions == 7


@pytest.mark.real_only
def test_a_client_refuses_a_server_that_evicts_and_writes_nothing(link: Link, namespace: str) -> None:
    call(link, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(EvictionPolicyRefused, match="redis-cli CONFIG SET maxmemory-policy noeviction"):
            converse(link, enter_namespace(namespace))
    finally:
        call(link, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert call(link, "EXISTS", f"{namespace}:namespace") == 0
