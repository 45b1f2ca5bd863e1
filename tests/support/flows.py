"""Flows of these tests."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from headrace import Flow, Signal, task


class Order(BaseModel):
    id: str
    total: int = 1


class Receipt(BaseModel):
    order: str
    at: datetime


@task
def settle(order: Order) -> Receipt:
    return Receipt(order=order.id, at=datetime.fromtimestamp(0))


@task
def anything(value: object) -> object:
    return value


orders = Flow("orders", input=Order).then(settle)
loose = Flow("loose").then(anything)
approval = Signal("approval", Order)
gated = Flow("gated").wait_for_signal(approval).then(anything)
