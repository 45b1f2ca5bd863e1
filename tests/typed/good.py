"""The first programs of a new user. Both checkers must infer these types, strictly, without a hint.

Never run; `test_checkers.py` checks it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import Enum
from typing import Any, Literal, assert_type

from pydantic import BaseModel

from headrace import (
    Client,
    Flow,
    Handle,
    Retention,
    RetryPolicy,
    Signal,
    Start,
    StartAnswer,
    SyncClient,
    SyncHandle,
    TaskContext,
    task,
)
from headrace.errors import HeadraceError


# 1 ---- an order: fork, join, retries
class Order(BaseModel):
    id: str
    total: int


class Charge(BaseModel):
    ref: str


class Receipt(BaseModel):
    order: str


@task
def validate(order: Order) -> Order:
    return order


@task(retries=RetryPolicy(max_retries=3, retry_on=ConnectionError), timeout="30s", queue="payments")
async def charge(order: Order, ctx: TaskContext) -> Charge:
    return Charge(ref=f"{order.id} {ctx.idempotency_key}")


@task(isolation="process")
def reserve(order: Order) -> int:
    return order.total


@task
def confirm(charge: Charge, stock: int) -> Receipt:
    return Receipt(order=f"{charge.ref} {stock}")


@task
async def confirm_with_context(charge: Charge, stock: int, ctx: TaskContext) -> Receipt:
    return Receipt(order=f"{charge.ref} {stock} {ctx.attempt}")


@task
def confirm_dict(parts: dict[str, Any]) -> int:
    return len(parts)


def confirm_plain(charge: Charge, stock: int) -> str:
    return f"{charge.ref} {stock}"


fork = Flow("orders", input=Order).then(validate).fork().branch("charge", charge).branch("stock", reserve)
orders = fork.join(confirm)
assert_type(orders, Flow[Order, Receipt])
assert_type(fork.join(confirm_with_context), Flow[Order, Receipt])
assert_type(fork.join(confirm_dict), Flow[Order, int])
assert_type(fork.join(confirm_plain), Flow[Order, str])
assert_type(fork.join(), Flow[Order, dict[str, Any]])


# 2 ---- an approval: a signal with a time-out
class Approval(BaseModel):
    ok: bool
    by: str


approval = Signal("approval", Approval)


@task
def escalate(order: Order) -> Approval:
    return Approval(ok=False, by=f"time-out of {order.id}")


@task
def settle(decision: Approval) -> str:
    return "paid" if decision.ok else "refused"


@task
def settle_or_none(decision: Approval | None) -> str:
    return "nothing" if decision is None else decision.by


@task
def settle_pair(pair: tuple[Order, Approval]) -> str:
    return pair[0].id


start = Flow("refunds", input=Order, retention=Retention(completed="7d", failed="forever", count=500)).then(validate)
refunds = start.wait_for_signal(approval, timeout="48h", on_timeout=escalate).then(settle)
assert_type(refunds, Flow[Order, str])
assert_type(start.wait_for_signal(approval), Flow[Order, Approval])
assert_type(start.wait_for_signal(approval, timeout=3, default=None).then(settle_or_none), Flow[Order, str])
assert_type(start.wait_for_signal(approval, keep_input=True).then(settle_pair), Flow[Order, str])
assert_type(start.delay("1h").delay(0.5, name="nap").then(validate, name="again"), Flow[Order, Order])


# 3 ---- routes by Literal, Enum, bool and keys=
class Draft(BaseModel):
    text: str
    score: float


class Verdict(Enum):
    PUBLISH = "publish"
    DROP = "drop"


@task
async def write(question: str) -> Draft:
    return Draft(text=question, score=0.5)


@task
def verdict(draft: Draft) -> Literal["publish", "drop"]:
    return "publish" if draft.score > 0.8 else "drop"


@task
async def verdict_enum(draft: Draft) -> Verdict:
    return Verdict.PUBLISH if draft.score > 0.8 else Verdict.DROP


@task
def is_good(draft: Draft) -> bool:
    return draft.score > 0.8


@task
def language(draft: Draft) -> str:
    return draft.text[:2]


@task
def publish(draft: Draft) -> str:
    return draft.text


@task
def drop(draft: Draft) -> None:
    return None


drafts = Flow("agent", input=str).then(write)
agent = drafts.route(verdict).branch("publish", publish).default_branch(publish).end_route()
assert_type(agent, Flow[str, str])
by_enum = drafts.route(verdict_enum).branch(Verdict.PUBLISH, publish).branch(Verdict.DROP, drop).end_route()
assert_type(by_enum, Flow[str, str | None])
by_bool = drafts.route(is_good).branch(True, publish).branch(False, Flow("no", input=Draft).then(drop)).end_route()
assert_type(by_bool, Flow[str, str | None])
by_keys = drafts.route(language, keys=["en", "de"]).branch("en", publish).branch("de", publish).end_route()
assert_type(by_keys, Flow[str, str])


# 4 ---- tasks without a value, plain functions, flows in flows
@task
def nothing() -> int:
    return 1


@task
async def only_context(ctx: TaskContext) -> str:
    return ctx.instance_id


@task(name="other", description="for people")
async def only_context_too(ctx: TaskContext) -> str:
    return ctx.instance_id


def double(number: int) -> int:
    return 2 * number


async def triple(number: int) -> int:
    return 3 * number


numbers = Flow("numbers", input=int)
assert_type(numbers, Flow[int, int])
assert_type(numbers.then(nothing).then(only_context).then(only_context_too), Flow[int, str])
assert_type(numbers.then(double).then(triple).then(lambda n: str(n), name="text"), Flow[int, str])
assert_type(numbers.then_flow(Flow("inner", input=int).then(double)), Flow[int, int])
assert_type(Flow("lists", input=list[int]), Flow[list[int], list[int]])
assert_type(Flow("anything"), Flow[Any, Any])
assert_type(validate(Order(id="1", total=2)), Order)


# 5 ---- the client
async def main(client: Client, later: AsyncIterator[Order]) -> None:
    handle = await client.start(orders, Order(id="42", total=9), id="order-42")
    assert_type(handle, Handle[Receipt])
    assert_type(await handle.result(), Receipt)
    assert_type(await client.start("orders", {"id": "42"}), Handle[Any])
    assert_type(client.handle("order-42", orders), Handle[Receipt])
    assert_type(client.handle("order-42"), Handle[Any])
    await client.signal("refund-7", approval, Approval(ok=True, by="ann"))
    async for event in handle.events(after="AAA:1.2"):
        assert_type(event.position, str)
    async for answer in client.start_many(orders, [Order(id="1", total=1)]):
        assert_type(answer, StartAnswer[Handle[Receipt]])
        assert_type(await answer.handle.result(), Receipt)
    async for answer in client.start_many(orders, (Start(Order(id=str(n), total=n), id=f"o-{n}") for n in range(9))):
        assert_type(answer.error, HeadraceError | None)
    async for answer in client.start_many(orders, later, conflict="use_existing"):
        assert_type(answer.handle, Handle[Receipt])
    async for any_answer in client.start_many("orders", [{"id": "1"}, Start({"id": "2"}, id="two")]):
        assert_type(any_answer, StartAnswer[Handle[Any]])
    async for number in client.start_many(numbers, [Start(2, id="two"), Start(3)]):
        assert_type(number, StartAnswer[Handle[int]])


def main_sync(client: SyncClient) -> None:
    handle = client.start(orders, Order(id="42", total=9), id="order-42")
    assert_type(handle, SyncHandle[Receipt])
    assert_type(handle.result("1m"), Receipt)
    assert_type(client.start("orders", {"id": "42"}), SyncHandle[Any])
    assert_type(client.handle("order-42", orders), SyncHandle[Receipt])
    assert_type(client.handle("order-42"), SyncHandle[Any])
    client.signal("refund-7", approval, Approval(ok=True, by="ann"))
    client.signal("refund-7", "approval", {"ok": True, "by": "ann"})
    for event in handle.events():
        assert_type(event.kind, str)
    for answer in client.start_many(orders, [Start(Order(id="2", total=2), id="o-2")]):
        assert_type(answer, StartAnswer[SyncHandle[Receipt]])
    for any_answer in client.start_many("orders", [{"id": "1"}]):
        assert_type(any_answer.handle.result(), Any)
    assert_type([answer.handle for answer in client.start_many(numbers, range(3))], list[SyncHandle[int]])
