"""Flows as authors write them, compiled by the SDK and brought to their end by the engine."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from engine.world import World

from headrace import Flow, RetryPolicy, Signal, task


@task(retries=3, timeout="30s", queue="payments")
def charge(order: Any) -> int:
    raise NotImplementedError


@task
def reserve(order: Any) -> int:
    raise NotImplementedError


@task(retries=RetryPolicy(max_retries=1, initial_delay="250ms", jitter=0))
def confirm(charge: int, stock: int) -> str:
    raise NotImplementedError


@task
def escalate(confirmed: str) -> str:
    raise NotImplementedError


@task
def settle(approved: Any) -> str:
    raise NotImplementedError


@task
def verdict(text: Any) -> Literal["publish", "drop"]:
    raise NotImplementedError


approval = Signal("approval", str)

orders = (
    Flow("orders")
    .fork()
    .branch("charge", charge)
    .branch("stock", reserve)
    .join(confirm)
    .wait_for_signal(approval, timeout="48h", on_timeout=escalate)
    .then(settle)
)


def confirmed() -> World:
    world = World(orders.definition).start({"id": 7})
    assert world.handed_out == ["charge/charge", "stock/reserve"]
    world.complete("charge/charge", 100)
    world.complete("stock/reserve", 3)
    assert world.given("confirm") == {"charge": 100, "stock": 3}
    world.complete("confirm", "confirmed")
    return world


def test_the_orders_flow_with_its_signal() -> None:
    world = confirmed()
    assert world.due_in == 48 * 3_600_000
    world.signal("approval", "fine")
    assert world.given("settle") == "fine"
    world.complete("settle", "settled")
    assert world.result_value == "settled"


def test_the_orders_flow_without_its_signal() -> None:
    world = confirmed()
    world.advance("2d")
    (late,) = world.handed_out
    assert world.given(late) == "confirmed"
    world.complete(late, "the boss said so")
    assert world.given("settle") == "the boss said so"


def test_options_of_a_task_reach_its_attempts() -> None:
    world = World(orders.definition).start()
    hand_out = world.task("charge/charge")
    assert (hand_out.call.queue, hand_out.call.timeout_ms, hand_out.call.retry.max_retries) == ("payments", 30_000, 3)
    world.begin("charge/charge")
    world.time_out("charge/charge")
    assert 900 <= world.due_in <= 1100, "1 s, give or take a tenth"

    world.complete("stock/reserve", 3)
    world.advance("2s")
    world.complete("charge/charge", 1)
    world.fail("confirm")
    assert world.due_in == 250


@pytest.mark.parametrize(("key", "node"), [("publish", "publish/settle"), ("drop", "drop/delay")])
def test_a_route(key: str, node: str) -> None:
    flow = (
        Flow("articles")
        .route(verdict)
        .branch("publish", settle)
        .branch("drop", Flow("pause").delay("1s").then(escalate))
        .end_route()
        .delay("5s")
    )
    world = World(flow.definition).start("text")
    world.complete("verdict", key, route=key)
    assert node in world.where
    world.advance("1s")
    world.complete(world.handed_out[0], "text of the branch")
    world.advance("5s")
    assert world.result_value == "text of the branch"
