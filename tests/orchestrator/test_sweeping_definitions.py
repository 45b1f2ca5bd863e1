"""Definitions go when nothing refers to them any more: no flow, no instance, and nobody stored them for a week."""

from __future__ import annotations

import pytest

from headrace_broker.definitions import Definition
from headrace_broker.registry import store_flow
from headrace_broker.retention import Retention
from headrace_orchestrator.sweeping.definitions import AT_ONCE, KEEP_MS, sweep_definitions

from . import flows
from .bench import Bench, counted, settle

pytestmark = pytest.mark.real_only

OLD, NEW = flows.chain("old", flow="f"), flows.chain("new", flow="f")
LATER = KEEP_MS + 60_000


def stored(bench: Bench, *definitions: Definition) -> list[Definition]:
    return [one for one in definitions if bench.call("EXISTS", bench.keys.definition(one.digest))]


def sweep(bench: Bench, later: int = LATER) -> int:
    return bench.hold(sweep_definitions(bench.keys, bench.namespace.partitions, bench.now_ms() + later))


def test_one_that_was_replaced_goes_after_a_week(bench: Bench) -> None:
    for definition in (OLD, NEW):
        bench.register(definition)
    assert sweep(bench, KEEP_MS - 60_000) == 0
    assert stored(bench, OLD, NEW) == [OLD, NEW]
    assert sweep(bench) == 1
    assert stored(bench, OLD, NEW) == [NEW]
    assert bench.call("ZRANGE", bench.keys.definitions, 0, -1) == [NEW.digest.encode()]


def test_one_that_an_instance_has_stays_until_that_is_deleted(wide_bench: Bench) -> None:
    bench = wide_bench
    bench.register(OLD, Retention("forever"))
    bench.start("c", OLD)
    bench.register(NEW, Retention("forever"))
    assert sweep(bench) == 0
    orchestrator, hand = bench.orchestrator(), bench.hand()
    settle(orchestrator, hand)
    assert bench.status("c") == "completed"
    assert sweep(bench, 2 * LATER) == 0
    bench.delete("c")
    settle(orchestrator, hand)
    assert sweep(bench, 2 * LATER) == 0, "it was in use when it was last looked at"
    assert sweep(bench, 3 * LATER) == 1
    assert stored(bench, OLD, NEW) == [NEW]


def test_storing_it_again_keeps_it(bench: Bench) -> None:
    for definition in (OLD, NEW):
        bench.register(definition)
    bench.call("ZADD", bench.keys.definitions, bench.now_ms() - LATER, OLD.digest)
    bench.hold(store_flow(bench.keys, OLD, version=1))
    bench.register(NEW)
    assert sweep(bench, 0) == 0
    assert stored(bench, OLD) == [OLD]


def test_one_that_is_stored_while_it_is_deleted_is_put_back(bench: Bench) -> None:
    for definition in (OLD, NEW):
        bench.register(definition)
    conversation = sweep_definitions(bench.keys, 1, bench.now_ms() + LATER)
    commands = next(conversation)
    while True:
        if commands[0][0] == "UNLINK":  # between the sweeper's look and its deletion
            bench.call("ZADD", bench.keys.definitions, bench.now_ms() + LATER, OLD.digest)
        try:
            commands = conversation.send(bench.ask(*commands))
        except StopIteration:
            break
    assert stored(bench, OLD, NEW) == [OLD, NEW]


def test_those_in_use_do_not_hide_the_others(bench: Bench) -> None:
    used = [bench.register(flows.chain("a", flow=f"f{n}")) for n in range(AT_ONCE)]
    for definition in used:
        bench.call("ZADD", bench.keys.definitions, 1, definition.digest)
    for definition in (OLD, NEW):
        bench.register(definition)
    assert sweep(bench) == 0
    assert sweep(bench) == 1
    assert stored(bench, OLD, NEW) == [NEW]


def test_the_owner_of_partition_0_does_it(wide_bench: Bench) -> None:
    bench = wide_bench
    for definition in (OLD, NEW):
        bench.register(definition)
    orchestrator = bench.orchestrator()
    settle(orchestrator, bench.hand())
    bench.sweep(orchestrator, LATER)
    assert stored(bench, OLD, NEW) == [NEW]
    assert counted(orchestrator, "definitions_swept_total") == 1
