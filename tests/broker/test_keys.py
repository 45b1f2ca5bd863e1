"""Keys: what crosses Redis under which name, and what ends it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from zlib import crc32

import pytest

from headrace_broker.errors import ConfigurationError
from headrace_broker.keys import Keys, PartitionKeys, classify, partition_of, queue_of, stream_of

INCARNATION = "Ab3_-xyz0912"
ODD = [
    "plain",
    "order:17",
    "a:b:c:",
    ":",
    "line\nbreak",
    "\n",
    "tab\tand space",
    "{brace}:1}:meta",
    "{ns:0}:i:x",
    "größe-名前-🚰",
    "x" * 256,
    "\x00",
]

KEYS = Keys("my.ns-1_x")
PARTITION = KEYS.partition(3)

NAMESPACE_KEYS: dict[str, Callable[[str], str]] = {
    "namespace": lambda _: KEYS.namespace,
    "signals": lambda _: KEYS.signals,
    "queues": lambda _: KEYS.queues,
    "workers": lambda _: KEYS.workers,
    "flows": lambda _: KEYS.flows,
    "worker": KEYS.worker,
    "flow": KEYS.flow,
    "definition": KEYS.definition,
    "definitions": lambda _: KEYS.definitions,
}
PARTITION_KEYS: dict[str, Callable[[str], str]] = {
    "meta": lambda _: PARTITION.meta,
    "owner": lambda _: PARTITION.owner,
    "events": lambda _: PARTITION.events,
    "starts": lambda _: PARTITION.starts,
    "timers": lambda _: PARTITION.timers,
    "quarantine": lambda _: PARTITION.quarantine,
    "missing": lambda _: PARTITION.missing,
    "outbox": lambda _: PARTITION.outbox,
    "by_status": PARTITION.by_status,
    "by_flow": PARTITION.by_flow,
    "retained": lambda flow: PARTITION.retained("completed", flow),
    "purge": lambda _: PARTITION.purge,
    "counted": lambda _: PARTITION.counted,
    "tasks": PARTITION.tasks,
    "request": PARTITION.request,
    "header": PARTITION.header,
    "archive": lambda _: PARTITION.archive(INCARNATION),
    "state": lambda _: PARTITION.state(INCARNATION),
    "outputs": lambda _: PARTITION.outputs(INCARNATION),
    "history": lambda _: PARTITION.history(INCARNATION),
    "parked": lambda _: PARTITION.parked(INCARNATION),
    "large": lambda _: PARTITION.large(INCARNATION),
    "value": lambda name: PARTITION.value(INCARNATION, name),
}
ALL_KEYS = NAMESPACE_KEYS | PARTITION_KEYS
CHANNELS: dict[str, Callable[[str], str]] = {
    "revoked": lambda _: PARTITION.revoked,
    "ended": lambda _: PARTITION.ended(INCARNATION),
}
NO_KEYS = {"tag", "partition", "values"}
BY_INCARNATION = {"archive", "state", "outputs", "history", "parked", "large", "value"}
ENDS = {
    "permanent": {"namespace", "queues", "workers", "flows", "flow", "definitions", "meta", "tasks"},
    "ttl": {"worker", "owner", "request"},
    "trimmed": {"signals", "events", "starts", "outbox", "quarantine"},
    "owner": {"definition", "timers", "missing", "by_status", "by_flow", "retained", "purge", "counted"},
    "instance": {"header", *BY_INCARNATION},
}


def functions(of: type) -> set[str]:
    """The names of a class's key functions: its public methods and cached properties."""
    return {
        name
        for name, member in vars(of).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, cached_property))
    }


def test_this_test_knows_every_key_function() -> None:
    assert functions(Keys) | functions(PartitionKeys) == ALL_KEYS.keys() | CHANNELS.keys() | NO_KEYS


def test_each_kind_has_one_end() -> None:
    assert sorted(ALL_KEYS) == sorted(name for names in ENDS.values() for name in names)


@pytest.mark.parametrize("name", ALL_KEYS)
def test_classify_knows_every_key(name: str) -> None:
    for odd in ODD:
        kind = classify(ALL_KEYS[name](odd))
        assert kind is not None, odd
        assert kind.name == name
        assert name in ENDS[kind.end]
        assert kind.incarnation == (INCARNATION if name in BY_INCARNATION else None)


@pytest.mark.parametrize("name", [*PARTITION_KEYS, *CHANNELS])
def test_what_belongs_to_a_partition_carries_its_hash_tag(name: str) -> None:
    """A cluster hashes what stands between the first `{` and the first `}` after it."""
    for odd in ODD:
        key = (PARTITION_KEYS | CHANNELS)[name](odd)
        opening = key.index("{")
        assert key[opening + 1 : key.index("}", opening)] == "my.ns-1_x:3"


def test_values_is_the_prefix_of_an_incarnation_s_value_keys() -> None:
    assert PARTITION.value(INCARNATION, "x:y") == PARTITION.values(INCARNATION) + "x:y"
    assert classify(PARTITION.values(INCARNATION)) is None


def test_no_two_functions_make_the_same_key() -> None:
    for odd in ODD:
        keys = [function(odd) for function in [*ALL_KEYS.values(), *CHANNELS.values()]]
        assert len(set(keys)) == len(keys)
    for function in (PARTITION.header, PARTITION.tasks, PARTITION.request, KEYS.flow):
        assert len({function(odd) for odd in ODD}) == len(ODD)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x",
        ":",
        "ns:",
        "ns:other",
        "ns:worker",
        "ns:worker:",
        "ns:meta",
        "{ns:1}",
        "{ns:1}:",
        "{ns:1}:i",
        "{ns:1}:i:",
        "{ns:1}:other:x",
        "{ns:1}:retained:running:x",
        "{ns:1}:retained:failed:",
        "{ns:1}:metameta",
        "{ns:1}:s:",
        "{ns:1}:s:inc:more",
        "{ns:1}:v:inc",
        "{ns:1}:v::name",
        "{ns:x}:meta",
        "{ns}:meta",
        "{n s:1}:meta",
        "rq:job:1",
        "{ns:1}:revoked",
        "{ns:1}:meta\n",
        "ns:signals\n",
    ],
)
def test_classify_knows_nothing_else(key: str) -> None:
    assert classify(key) is None


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_channel_is_no_key(channel: str) -> None:
    assert classify(CHANNELS[channel]("")) is None


@pytest.mark.parametrize("ns", ["a", "A.b-c_9", "x" * 64])
def test_a_namespace(ns: str) -> None:
    assert Keys(ns).partition(0).meta == "{" + ns + ":0}:meta"


@pytest.mark.parametrize("ns", ["", "x" * 65, "a:b", "a b", "a{b", "a}b", "ä", "a\n", "*", "a/b", "٣"])
def test_not_a_namespace(ns: str) -> None:
    with pytest.raises(ConfigurationError, match="A namespace is 1 to 64 of the characters"):
        Keys(ns)


@pytest.mark.parametrize("instance", ODD)
def test_an_instance_lives_where_the_crc_of_its_id_says(instance: str) -> None:
    assert partition_of(instance, 4) == crc32(instance.encode()) % 4
    assert partition_of(instance, 1) == 0


def test_partitions_are_pinned() -> None:
    """If these change, no running instance is found again."""
    assert [partition_of(f"order-{n}", 4) for n in range(8)] == [1, 3, 1, 3, 0, 2, 0, 2]
    assert partition_of("größe-名前-🚰", 1000) == 417


@pytest.mark.parametrize("queue", ["default", "high-mem", "a.b_c"])
def test_a_queue_has_a_stream_per_isolation(queue: str) -> None:
    thread, process = stream_of(queue, "thread"), stream_of(queue, "process")
    assert thread == queue
    assert process == f"{queue}:process"
    assert queue_of(thread) == queue_of(process) == queue
