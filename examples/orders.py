"""The README's flow: two branches in parallel, a retry policy, a signal with a time-out."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from headrace import Flow, Signal, task


class Order(BaseModel):
    id: str
    total: int


approval = Signal("approval", bool)


@task(retries=3, timeout="30s", queue="payments")
async def charge(order: Order) -> str:
    await asyncio.sleep(0.1)
    return f"charge-{order.id}"


@task
def reserve(order: Order) -> int:
    return min(order.total, 5)


@task
def confirm(charge: str, stock: int) -> str:
    return f"{charge}: {stock} reserved"


@task
def settle(approved: bool) -> str:
    return "shipped" if approved else "refunded"


orders = (
    Flow("orders", input=Order)
    .fork().branch("charge", charge).branch("stock", reserve).join(confirm)
    .wait_for_signal(approval, timeout="48h", default=False)
    .then(settle)
)  # fmt: skip
