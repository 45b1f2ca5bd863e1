"""`@task`: what it keeps, what it takes, what it refuses."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from headrace import InvalidTask, RetryPolicy, Task, TaskContext, task
from headrace.errors import InvalidDuration
from headrace_broker.definitions import RetrySpec, TaskCall


def test_a_bare_task_is_still_the_function() -> None:
    @task
    def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    assert double(4) == 8
    assert double.name == "double"
    assert double.description == "Twice the number."
    assert double.__doc__ == "Twice the number."
    assert double.call() == TaskCall("double", retry=RetryPolicy(max_retries=0).spec())
    assert not double.is_async


async def test_an_async_task_is_still_the_coroutine_function() -> None:
    @task()
    async def double(number: int) -> int:
        return 2 * number

    assert double.is_async
    assert await double(4) == 8


def test_options_are_what_the_definition_gets() -> None:
    @task(name="pay.charge", queue="payments", retries=3, timeout="30s", isolation="process", description="Charges.")
    def charge(order: int) -> int:
        return order

    retry = RetrySpec(max_retries=3, initial_ms=1000, backoff=2.0, max_ms=3_600_000, jitter=0.1)
    assert charge.call() == TaskCall("pay.charge", "payments", "process", 30_000, retry)
    assert charge.description == "Charges."


def test_a_partial_or_an_object_is_async_if_its_function_is() -> None:
    async def add(one: int, other: int) -> int:
        return one + other

    class Adder:
        async def __call__(self, one: int) -> int:
            return one

    assert task(name="add_1")(functools.partial(add, other=1)).is_async
    assert task(name="adder")(Adder()).is_async


def generator(number: int) -> Iterator[int]:
    yield number


async def async_generator(number: int) -> AsyncIterator[int]:
    yield number


def stars(*args: int) -> None: ...


def keyword_only(value: int, *, factor: int) -> None: ...


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: task(generator), "'generator' is a generator. Generators as tasks are not supported yet"),
        (lambda: task(async_generator), "not supported yet in this release"),
        (lambda: task(stars), r"takes \*args"),
        (lambda: task(keyword_only), "keyword-only parameter 'factor' without a default"),
        (lambda: task(lambda: 1), "lambda, partial or object has no name"),
        (lambda: task(name="a b")(stars), "A task's name has 1 to 128 characters: .* got 'a b'"),
        (lambda: task(name="a/b")(stars), "A task's name"),
        (lambda: task(queue="a:b")(keyword_only), "The queue of task 'keyword_only'"),
        (lambda: task(isolation="box")(takes_one), 'is "thread" or "process"; got \'box\''),  # type: ignore[call-overload]
        (lambda: task(timeout=0)(takes_one), "is above zero; got 0. Leave it out"),
        (lambda: task(retries=-1)(takes_one), "max_retries is a whole number from 0 to 10000 .* got -1"),
        (lambda: task(retries=True)(takes_one), "got True"),
        (lambda: task(3), "decorates a function; got int 3"),  # type: ignore[call-overload]
        (lambda: task(task(takes_one)), "is a task already"),
    ],
)
def test_a_wrong_task_says_what_is_wrong(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InvalidTask, match=says):
        make()


def takes_one(value: int) -> int:
    return value


def test_a_wrong_timeout_is_an_invalid_duration() -> None:
    with pytest.raises(InvalidDuration, match="30 secs"):
        task(timeout="30 secs")(takes_one)


def test_durations_may_be_timedeltas() -> None:
    assert task(timeout=timedelta(minutes=1))(takes_one).timeout_ms == 60_000


def test_a_keyword_only_context_is_no_mistake() -> None:
    @task
    def fine(value: int, *, ctx: TaskContext, flag: bool = False) -> None: ...

    assert [each.name for each in fine.signature.values] == ["value", "flag"]


def test_an_annotation_may_come_to_exist_later() -> None:
    space: dict[str, Any] = {"task": task, "TaskContext": TaskContext}
    source = "@task\ndef late(value: 'Later', ctx: 'TaskContext') -> 'Nowhere': ..."
    exec(source, space)
    late: Task[..., Any, Any, Any] = space["late"]
    assert [each.name for each in late.signature.values] == ["value"]
    with pytest.raises(
        InvalidTask, match=r"'late': the annotation 'Later' of its parameter 'value' cannot be .*module level"
    ):
        late.check()
    space["Later"] = int
    late.check()
    assert late.signature.annotation("value") is int
    assert late.signature.returns() is Any


def test_equal_tasks_may_stand_for_each_other() -> None:
    bare, again, elsewhere = task(takes_one), task(takes_one), task(queue="other")(takes_one)
    picky, patient = task(retries=RetryPolicy(retry_on=OSError))(takes_one), task(retries=3)(takes_one)
    assert bare.same_as(again)
    assert not bare.same_as(elsewhere)
    assert not picky.same_as(patient)
