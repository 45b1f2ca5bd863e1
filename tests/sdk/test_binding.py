"""From values to arguments."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from headrace import PayloadMismatch, TaskContext, task
from headrace.errors import FlowError
from headrace_broker import codec, values
from headrace_broker.messages import TaskMessage
from headrace_broker.values import Value


class Order(BaseModel):
    id: str
    total: int


@dataclasses.dataclass
class Item:
    sku: str


def message() -> TaskMessage:
    return TaskMessage(
        instance="o-1",
        incarnation="abc",
        run=1,
        flow="orders",
        node="charge",
        task="charge",
        dispatch="0-1f-3-1",
        token=0,
        step=4,
        attempt=1,
        max_attempts=3,
        losses=0,
        alone=False,
        timeout_ms=0,
        at=0,
        value=b"m",
    )


CONTEXT = TaskContext(message())


def carried(value: object) -> Value:
    return values.inline(codec.encode(value))


def joined(**parts: object) -> Value:
    return values.composite("args", parts, map(carried, parts.values()))


def test_the_value_is_decoded_by_annotation_and_the_context_injected() -> None:
    @task
    def charge(order: Order, ctx: TaskContext, factor: int = 2) -> None: ...

    args, kwargs = charge.bind(carried(Order(id="1", total=3)), CONTEXT)
    assert args == (Order(id="1", total=3), CONTEXT, 2)
    assert kwargs == {}


def test_the_context_may_stand_anywhere() -> None:
    @task
    def first(ctx: TaskContext, /, item: Item) -> None: ...

    @task
    def last(item: Item, *, ctx: TaskContext | None = None) -> None: ...

    assert first.bind(carried(Item("a")), CONTEXT) == ((CONTEXT, Item("a")), {})
    assert last.bind(carried(Item("a")), CONTEXT) == ((Item("a"),), {"ctx": CONTEXT})


def test_a_value_without_annotation_is_plain() -> None:
    @task(name="plain")
    def plain(order): ...  # type: ignore[no-untyped-def]

    assert plain.bind(carried(Order(id="1", total=3)), CONTEXT) == (({"id": "1", "total": 3},), {})


def test_a_task_that_takes_nothing_ignores_the_value() -> None:
    @task
    def nothing() -> None: ...

    @task
    def only_context(ctx: TaskContext) -> None: ...

    assert nothing.bind(carried(3), CONTEXT) == ((), {})
    assert only_context.bind(joined(a=1), CONTEXT) == ((CONTEXT,), {})


def test_json_is_read_as_well() -> None:
    @task
    def charge(order: Order) -> None: ...

    assert charge.bind(values.inline(b'{"id": "1", "total": 3}', "j"), CONTEXT) == ((Order(id="1", total=3),), {})


def test_a_join_gets_its_arguments_by_name() -> None:
    @task
    def confirm(charge: Order, stock: int, ctx: TaskContext) -> None: ...

    args, kwargs = confirm.bind(joined(charge=Order(id="1", total=3), stock=4), CONTEXT)
    assert args == (Order(id="1", total=3), 4, CONTEXT)
    assert kwargs == {}


def test_a_join_may_take_one_dict() -> None:
    @task
    def confirm(parts: dict[str, int]) -> None: ...

    value = values.composite("dict", ["a", "b"], [carried(1), carried(2)])
    assert confirm.bind(value, CONTEXT) == (({"a": 1, "b": 2},), {})


def test_a_pair_is_a_tuple() -> None:
    @task
    def settle(pair: tuple[Order, int]) -> None: ...

    value = values.composite("pair", [], [carried(Order(id="1", total=3)), carried(2)])
    assert settle.bind(value, CONTEXT) == (((Order(id="1", total=3), 2),), {})


def test_a_mismatch_names_task_and_parameter() -> None:
    @task
    def charge(order: Order) -> None: ...

    with pytest.raises(PayloadMismatch, match=r"Task 'charge', parameter 'order' \(Order\): .*total") as caught:
        charge.bind(carried({"id": "1", "total": "many"}), CONTEXT)
    assert caught.value.ids == {"task": "charge", "parameter": "order"}


def test_a_mismatch_in_a_join_names_the_parameter() -> None:
    @task
    def confirm(charge: str, stock: Annotated[int, Field(gt=0)]) -> None: ...

    with pytest.raises(PayloadMismatch, match="Task 'confirm', parameter 'stock'"):
        confirm.bind(joined(charge="a", stock=0), CONTEXT)


@pytest.mark.parametrize("value", [joined(charge=1), joined(charge=1, stock=2, more=3), carried(3)])
def test_a_join_that_was_changed_while_the_instance_ran_is_a_mismatch(value: Value) -> None:
    @task
    def confirm(charge: int, stock: int) -> None: ...

    with pytest.raises(PayloadMismatch, match="Was it changed while the instance ran"):
        confirm.bind(value, CONTEXT)


def test_an_annotation_that_nothing_validates_is_an_error_of_the_flow() -> None:
    class Opaque: ...

    @task
    def strange(thing: Opaque) -> None: ...

    with pytest.raises(FlowError, match="Opaque"):
        strange.bind(carried(3), CONTEXT)


def test_local_classes_are_found() -> None:
    class Local(BaseModel):
        number: int

    @task(retries=1)
    def uses(it: Local) -> Any:
        return it

    assert uses.bind(carried({"number": 3}), CONTEXT) == ((Local(number=3),), {})
