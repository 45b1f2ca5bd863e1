"""What a call gets wrong, that call raises: what was expected, what was found, what to do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, cast

import pytest

from headrace import Flow, InvalidFlow, InvalidTask, Signal, TaskContext, task
from headrace.errors import FlowError, InvalidDuration, PayloadNotSerializable
from headrace_broker.definitions import MAX_WIDTH


@task
def one(value: int) -> int:
    return value


@task
def two(value: int) -> int:
    return value


@task
def pair(left: int, right: int) -> int:
    return left + right


@task
def sign(value: int) -> Literal["plus", "minus"]:
    return "plus"


@task
def text(value: int) -> str:
    return str(value)


@task
def takes_int(a: int, ctx: TaskContext) -> int:
    return a


ANSWER = Signal("answer", int)
FLOW: Any = Flow("flow", input=int)  # these calls are wrong on purpose: no type checker here
FORK: Any = FLOW.fork()
ROUTE: Any = FLOW.route(sign)


def wide(branches: int) -> Any:
    fork: Any = Flow("wide").fork()
    for number in range(branches):
        fork = fork.branch(f"b{number}", one)
    return fork.join()


def different_one() -> Any:
    return task(name="one")(lambda value: value)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Flow("a b"), "A flow's name has 1 to 128 characters: .*got 'a b'"),
        (lambda: Flow("a", version=0), "version= of flow 'a' is a whole number from 1; got 0"),
        (lambda: Flow("a", retention=cast(Any, "7d")), r"retention= of flow 'a' is a Retention\(.*\); got '7d'"),
        (lambda: FLOW.definition, r"Flow 'flow' has no steps\. Add one with \.then"),
        (lambda: FLOW.then(one).then(one), r"two nodes named 'one'.*name=\"one_2\""),
        (lambda: FLOW.delay(1, name="x").delay(2, name="x"), "two nodes named 'x'"),
        (lambda: FLOW.then(one).then(different_one(), name="x"), "two different tasks named 'one': .*one and .*lambda"),
        (lambda: FLOW.then(one, name="a/b"), "A node of flow 'flow' has"),
        (lambda: FLOW.then(pair), r"Task 'pair' takes left, right, and in \.then\(\) .* one value flows in"),
        (lambda: FLOW.then(Flow("inner").then(one)), r"takes a task; got flow 'inner'\. .*\.then_flow"),
        (lambda: FLOW.then(FORK), r"got a fork that is not ended\. Call \.join"),
        (lambda: FLOW.then_flow(one), r"\.then_flow\(\) of flow 'flow' takes a flow"),
        (lambda: FLOW.then_flow(Flow("inner")), "got flow 'inner', which has no steps"),
        (
            lambda: FORK.branch("a", Flow("inner")),
            r"\.branch\('a'\) of flow 'flow' got flow 'inner', which has no steps",
        ),
        (lambda: FORK.branch("a", ROUTE), r"got a route that is not ended\. Call \.end_route\(\)"),
        (lambda: FORK.branch("a/b", one), "A branch of fork 'fork' in flow 'flow' has"),
        (lambda: FORK.branch("a", one).branch("a", two), "two branches named 'a'"),
        (lambda: FORK.branch("a", pair), "Task 'pair' takes left, right"),
        (lambda: FORK.join(), r"Fork 'fork' of flow 'flow' has no branches\. Add \.branch"),
        (lambda: FORK.branch("a", one).then(two), r"\.then after \.fork\(\)\. .* until \.join"),
        (lambda: FORK.branch("a", one).join(name="x"), "has no function to name"),
        (
            lambda: FORK.branch("left", one).branch("righ", two).join(pair),
            r"Join 'pair' of flow 'flow' takes \(left, right\); the branches are \(left, righ\)",
        ),
        (
            lambda: FORK.branch("right", one).branch("left", two).join(pair),
            "They are in another order",
        ),
        (lambda: FORK.branch("left", one).join(pair), r"the branches are \(left\)"),
        (lambda: FORK.branch("left", one).branch("right", one).join(takes_int), r"takes \(a\); the branches are"),
        (
            lambda: FORK.branch("a", one).join().fork().branch("a", one),
            r"two nodes named 'a/one'.*another name for its branch",
        ),
        (lambda: FLOW.route(text), r"The keys of router 'text' are unknown\. Annotate"),
        (lambda: FLOW.then(sign).route(sign), "two nodes named 'sign'"),
        (lambda: FLOW.route(text, keys="ab"), "keys= is a list of keys"),
        (
            lambda: ROUTE.branch("times", one),
            "Router 'sign' of flow 'flow' never answers 'times'; it answers 'plus', 'minus'",
        ),
        (lambda: ROUTE.branch(1.5, one), "A route's key is a text"),
        (lambda: ROUTE.branch("plus", one).branch("plus", two), "two branches for 'plus'"),
        (lambda: ROUTE.default_branch(one).default_branch(two), "two default branches"),
        (lambda: ROUTE.branch("plus", one).end_route(), r"no branch for 'minus'.*\.branch\('minus', \.\.\.\)"),
        (lambda: ROUTE.end_route(), "no branch for 'plus', 'minus'"),
        (lambda: ROUTE.branch("plus", one).definition, r"\.definition after \.route\(\)"),
        (lambda: FLOW.wait_for_signal("answer"), "takes a Signal; got 'answer'"),
        (lambda: FLOW.wait_for_signal(ANSWER, on_timeout=one), "has on_timeout= and no timeout="),
        (lambda: FLOW.wait_for_signal(ANSWER, default=None), "has default= and no timeout="),
        (lambda: FLOW.wait_for_signal(ANSWER, timeout=0), "is above zero; leave it out"),
        (
            lambda: FLOW.wait_for_signal(ANSWER, timeout=1, default=1, on_timeout=one),
            "default= and on_timeout=, which exclude each other",
        ),
        (
            lambda: FLOW.wait_for_signal(ANSWER, timeout=1, default=1, keep_input=True),
            "default= and keep_input=, which exclude each other",
        ),
        (lambda: FLOW.wait_for_signal(ANSWER, timeout=1, default="x" * 20_000), "the limit is 16,384"),
        (lambda: FLOW.wait_for_signal(ANSWER, timeout=1, on_timeout=pair), "Task 'pair' takes left, right"),
        (lambda: Signal("a b", int), "A signal's name has"),
        (lambda: wide(MAX_WIDTH + 1), f"runs {MAX_WIDTH + 1} branches at once.*at most {MAX_WIDTH}"),
        (
            lambda: FLOW.fork().branch("a", wide(200)).branch("b", wide(57)),
            "'fork' runs 257 branches at once, those inside its branches included",
        ),
    ],
)
def test_invalid_flows(call: Callable[[], object], says: str) -> None:
    with pytest.raises(InvalidFlow, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: FLOW.then(LAMBDA), InvalidTask, 'Give it one: name=, or task\\(name="double"\\)'),
        (lambda: FLOW.then(functools.partial(one)), InvalidTask, "has no name"),
        (lambda: FORK.branch("a", LAMBDA), InvalidTask, "has no name"),
        (lambda: FLOW.then("one"), InvalidTask, r"\.then\(\) of flow 'flow' takes a task or a function; got str 'one'"),
        (lambda: FORK.branch("a", one).join(Flow("x").then(one)), InvalidTask, "takes a task or a function; got Flow"),
        (lambda: FLOW.delay("soon"), InvalidDuration, "soon"),
        (lambda: FLOW.wait_for_signal(ANSWER, timeout="never"), InvalidDuration, "never"),
        (lambda: FLOW.wait_for_signal(ANSWER, timeout=1, default=object()), PayloadNotSerializable, "object"),
        (lambda: Flow("odd", input=Opaque).input_schema(), FlowError, "Opaque"),
    ],
)
def test_other_errors(call: Callable[[], object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call()


class Opaque: ...


LAMBDA: Callable[[int], int] = lambda value: value  # noqa: E731


def test_a_lambda_with_a_name_is_a_task() -> None:
    flow = FLOW.then(LAMBDA, name="same")
    assert list(flow.tasks) == ["same"]


def test_a_plain_function_may_be_used_twice() -> None:
    def plain(value: int) -> int:
        return value

    flow = FLOW.then(plain).then(plain, name="again")
    assert list(flow.tasks) == ["plain"]


def test_errors_name_what_they_are_about() -> None:
    with pytest.raises(InvalidFlow) as caught:
        FLOW.then(one).then(one)
    assert caught.value.ids == {"flow": "flow", "node": "one"}


def test_as_wide_as_can_be() -> None:
    assert len(wide(MAX_WIDTH).definition.nodes) == MAX_WIDTH + 1


def test_equal_signals() -> None:
    assert Signal("answer", int) == ANSWER
    assert Signal("answer", str) != ANSWER
    assert len({ANSWER, Signal("answer", int)}) == 1


def test_what_is_not_ended_can_be_asked_for_attributes() -> None:
    assert not hasattr(FORK, "then")
    assert not hasattr(ROUTE, "_private")
