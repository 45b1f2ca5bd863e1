"""Wrong programs: both checkers must reject each line that has a `type: ignore`, and no other.

An ignore that nothing needs is an error itself: mypy's `warn_unused_ignores`, and in pyright the rule switched on here.
Never run; `test_checkers.py` checks it.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import Enum
from typing import Any, Literal, assert_type

from headrace import Client, Flow, RetryPolicy, Signal, Start, SyncClient, TaskContext, task


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@task
def to_text(number: int) -> str:
    return str(number)


@task(retries=2)
async def to_text_later(number: int) -> str:
    return str(number)


@task
def to_number(text: str, ctx: TaskContext) -> int:
    return len(text)


@task
def color(number: int) -> Color:
    return Color.RED


@task
def sign(number: int) -> Literal["plus", "minus"]:
    return "plus"


@task
def join(left: str, right: int) -> str:
    return left * right


def plain(text: str) -> str:
    return text


flow = Flow("flow", input=int)
texts = flow.then(to_text)
answer = Signal("answer", int)

flow.then(to_number)  # type: ignore[arg-type]
texts.then(to_text)  # type: ignore[arg-type]
texts.then(to_text_later)  # type: ignore[arg-type]
flow.then(plain)  # type: ignore[arg-type]
flow.then("to_text")  # type: ignore[call-overload]
flow.then_flow(Flow("inner", input=str).then(to_number))  # type: ignore[arg-type]
flow.then(texts)  # type: ignore[call-overload]
flow.fork().branch("a", to_number)  # type: ignore[arg-type]
flow.fork().branch("a", plain)  # type: ignore[arg-type]
flow.fork().branch("a", to_text).join(join)  # type: ignore[arg-type]
flow.fork().branch("a", color).branch("b", to_text).join(join)  # type: ignore[arg-type]
flow.fork().branch("a", to_text).then(plain)  # type: ignore[attr-defined]
flow.route(to_number)  # type: ignore[arg-type]
flow.route(sign).branch("times", to_text)  # type: ignore[call-overload]
flow.route(sign).branch("plus", to_number)  # type: ignore[call-overload]
flow.route(color).branch("red", to_text)  # type: ignore[call-overload]
flow.route(sign).default_branch(to_number)  # type: ignore[arg-type]
flow.delay(None)  # type: ignore[arg-type]
flow.wait_for_signal("answer")  # type: ignore[call-overload]
flow.wait_for_signal(answer, default=3)  # type: ignore[call-overload]
flow.wait_for_signal(answer, timeout=1, on_timeout=to_number)  # type: ignore[arg-type]
flow.wait_for_signal(answer, timeout=1, default=2, on_timeout=to_text)  # type: ignore[call-overload]
texts.wait_for_signal(answer).then(to_number)  # type: ignore[arg-type]
Flow("x", input=3)  # type: ignore[call-overload]
Flow("x", input=int, version="1")  # type: ignore[call-overload]
Signal(3, int)  # type: ignore[arg-type]
RetryPolicy(max_retries="3")  # type: ignore[arg-type]
task(retries="3")  # type: ignore[call-overload]
task(isolation="container")  # type: ignore[call-overload]
to_text("3")  # type: ignore[arg-type]
assert_type(texts, Flow[int, int])  # type: ignore[assert-type]
assert_type(texts, Flow[Any, Any])  # type: ignore[assert-type]


async def main(client: Client) -> None:
    await client.start(flow, "three", id="x")  # type: ignore[misc]
    await client.signal("x", answer, "three")  # type: ignore[misc]
    assert_type(await (await client.start(flow, 3, id="x")).result(), str)  # type: ignore[assert-type]
    client.start_many(flow, ["three"])  # type: ignore[misc]
    client.start_many(flow, [Start("three", id="x")])  # type: ignore[arg-type]
    client.start_many(flow, 3)  # type: ignore[call-overload]
    client.start(flow, 3).result()  # type: ignore[attr-defined]
    client.handle("x").events(after=3)  # type: ignore[arg-type]


def main_sync(client: SyncClient) -> None:
    client.start(flow, "three", id="x")  # type: ignore[misc]
    client.signal("x", answer, "three")  # type: ignore[misc]
    assert_type(client.start(flow, 3, id="x").result(), str)  # type: ignore[assert-type]
    client.start_many(flow, ["three"])  # type: ignore[misc]
    client.start_many(flow, aiter_of_ints())  # type: ignore[call-overload]


async def aiter_of_ints() -> AsyncIterator[int]:
    yield 3
