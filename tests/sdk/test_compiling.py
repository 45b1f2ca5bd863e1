"""Definitions, as a golden structure for each kind of step."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from headrace import Flow, Signal, TaskContext, task
from headrace_broker import codec, values
from headrace_broker.definitions import Definition

ANSWER = Signal("answer", int)


@task
def one(value: int) -> int:
    return value


@task(queue="other", retries=2, timeout="5s", isolation="process")
def two(value: int) -> int:
    return value


@task
def three(value: int) -> int:
    return value


@task
def add(left: int, right: int, ctx: TaskContext) -> int:
    return left + right


@task
def total(parts: dict[str, int]) -> int:
    return sum(parts.values())


@task
def sign(value: int) -> Literal["plus", "minus"]:
    return "plus"


CALL_RETRY = [0, 1000, 2.0, 3_600_000, 0.1]


def call(name: str) -> list[Any]:
    return [name, "default", "thread", 0, CALL_RETRY]


def shape(flow: Flow[Any, Any]) -> list[tuple[str, str, int | None, dict[str, Any]]]:
    """The nodes, calls shortened to the task's name. What is read back from the wire is the same."""
    definition = Definition.from_wire(flow.definition.wire)
    assert definition == flow.definition
    assert definition.first == 0
    rows: list[tuple[str, str, int | None, dict[str, Any]]] = []
    for node in definition.nodes:
        params = dict(node.params)
        if "call" in params:
            params["call"] = params["call"][0]
        rows.append((node.kind, node.name, node.next, params))
    return rows


def start() -> Flow[int, int]:
    return Flow("flow", input=int)


def test_a_chain() -> None:
    flow = start().then(one).delay("2s").then(two).delay(0.5).then(one, name="again")
    assert shape(flow) == [
        ("task", "one", 1, {"call": "one"}),
        ("delay", "delay", 2, {"ms": 2000}),
        ("task", "two", 3, {"call": "two"}),
        ("delay", "delay-2", 4, {"ms": 500}),
        ("task", "again", None, {"call": "one"}),
    ]


def test_calls_in_full() -> None:
    nodes = start().then(one).then(two).definition.nodes
    assert nodes[0].params["call"] == call("one")
    assert nodes[1].params["call"] == ["two", "other", "process", 5000, [2, 1000, 2.0, 3_600_000, 0.1]]


def test_a_fork_with_arguments() -> None:
    branch = Flow("branch", input=int).then(two).delay(1)
    flow = start().then(one).fork().branch("left", branch).branch("right", one).join(add).then(three)
    assert shape(flow) == [
        ("task", "one", 1, {"call": "one"}),
        ("fork", "fork", 5, {"branches": [["left", 2], ["right", 4]], "shape": "args"}),
        ("task", "left/two", 3, {"call": "two"}),
        ("delay", "left/delay", None, {"ms": 1000}),
        ("task", "right/one", None, {"call": "one"}),
        ("task", "add", 6, {"call": "add"}),
        ("task", "three", None, {"call": "three"}),
    ]


def test_a_fork_with_a_dict_with_and_without_a_function() -> None:
    fork = start().fork().branch("a", one)
    assert shape(fork.join(total)) == [
        ("fork", "fork", 2, {"branches": [["a", 1]], "shape": "dict"}),
        ("task", "a/one", None, {"call": "one"}),
        ("task", "total", None, {"call": "total"}),
    ]
    assert shape(fork.join()) == [
        ("fork", "fork", None, {"branches": [["a", 1]], "shape": "dict"}),
        ("task", "a/one", None, {"call": "one"}),
    ]


def test_a_join_whose_one_parameter_is_the_branch_gets_the_argument() -> None:
    @task
    def only(a: dict[str, int]) -> int:
        return len(a)

    @task
    def only_b(b: dict[str, int]) -> int:
        return len(b)

    def shape_of(join: Any) -> object:
        return start().fork().branch("a", one).join(join).definition.nodes[0].params["shape"]

    assert shape_of(only) == "args"
    assert shape_of(only_b) == "dict"


def test_branches_of_a_route_go_on_after_it() -> None:
    plus = Flow("plus", input=int).then(one).then(two)
    flow = start().route(sign).branch("plus", plus).branch("minus", three).end_route().then(one)
    assert shape(flow) == [
        ("route", "sign", 4, {"call": "sign", "branches": {"minus": 3, "plus": 1}, "default": None}),
        ("task", "plus/one", 2, {"call": "one"}),
        ("task", "plus/two", 4, {"call": "two"}),
        ("task", "minus/three", 4, {"call": "three"}),
        ("task", "one", None, {"call": "one"}),
    ]


def test_a_route_at_the_end_with_a_default() -> None:
    flow = start().route(sign, name="which").branch("plus", one).default_branch(two).end_route()
    assert shape(flow) == [
        ("route", "which", None, {"call": "sign", "branches": {"plus": 1}, "default": 2}),
        ("task", "plus/one", None, {"call": "one"}),
        ("task", "default/two", None, {"call": "two"}),
    ]


def test_a_route_at_the_end_of_a_branch_ends_the_branch() -> None:
    inner = Flow("inner", input=int).route(sign).default_branch(one).end_route()
    flow = start().fork().branch("a", inner).branch("b", two).join().delay(1)
    assert [row[:3] for row in shape(flow)] == [
        ("fork", "fork", 4),
        ("route", "a/sign", None),
        ("task", "a/default/one", None),
        ("task", "b/two", None),
        ("delay", "delay", None),
    ]


def test_a_fork_in_a_route_goes_on_after_the_route() -> None:
    inner = Flow("inner", input=int).fork().branch("a", one).join(total)
    flow = start().route(sign).default_branch(inner).end_route().then(three)
    assert [row[:3] for row in shape(flow)] == [
        ("route", "sign", 4),
        ("fork", "default/fork", 3),
        ("task", "default/a/one", None),
        ("task", "default/total", 4),
        ("task", "three", None),
    ]


def signal_params(**changed: Any) -> dict[str, Any]:
    params = {"signal": "answer", "timeout_ms": 0, "on_timeout": None, "default": None, "keep_input": False}
    return {**params, **changed}


def test_signals() -> None:
    plain = start().wait_for_signal(ANSWER).wait_for_signal(ANSWER, keep_input=True)
    timed = plain.wait_for_signal(ANSWER, timeout="1h", name="last")
    flow = timed.wait_for_signal(ANSWER, timeout=1, default=None)
    assert shape(flow) == [
        ("signal", "wait_answer", 1, signal_params()),
        ("signal", "wait_answer-2", 2, signal_params(keep_input=True)),
        ("signal", "last", 3, signal_params(timeout_ms=3_600_000)),
        ("signal", "wait_answer-3", None, signal_params(timeout_ms=1000, default=values.inline(codec.encode(None)))),
    ]


def test_what_runs_on_a_time_out_goes_on_after_the_wait() -> None:
    late = Flow("late", input=int).then(one).then(two)
    flow = start().wait_for_signal(ANSWER, timeout=1, on_timeout=late).then(three)
    assert shape(flow) == [
        ("signal", "wait_answer", 3, signal_params(timeout_ms=1000, on_timeout=1)),
        ("task", "wait_answer/one", 2, {"call": "one"}),
        ("task", "wait_answer/two", 3, {"call": "two"}),
        ("task", "three", None, {"call": "three"}),
    ]
    flow = start().wait_for_signal(ANSWER, timeout=1, on_timeout=one)
    assert [row[:3] for row in shape(flow)] == [("signal", "wait_answer", None), ("task", "wait_answer/one", None)]


def test_a_flow_in_a_flow_is_inlined() -> None:
    inner = Flow("inner", input=int).then(one).fork().branch("a", two).join(total)
    flow = start().then_flow(inner).then(one).then_flow(inner, name="second")
    assert [row[:3] for row in shape(flow)] == [
        ("task", "inner/one", 1),
        ("fork", "inner/fork", 3),
        ("task", "inner/a/two", None),
        ("task", "inner/total", 4),
        ("task", "one", 5),
        ("task", "second/one", 6),
        ("fork", "second/fork", 8),
        ("task", "second/a/two", None),
        ("task", "second/total", None),
    ]


def test_a_definition_depends_on_content_alone() -> None:
    def make(version: int = 1) -> Flow[int, Any]:
        fork = Flow("same", input=int, version=version).then(lambda n: n, name="it").fork()
        return fork.branch("b", one).branch("a", two).join(total)

    assert make().definition.digest == make(7).definition.digest
    assert make().then(three).definition.digest != make().definition.digest
    assert make(7).version == make(7).delay(1).version == 7


def test_the_digest_of_the_first_release() -> None:
    """A change here parts every running instance from its flow's code: it needs a new version of the format."""
    assert start().then(one).delay("2s").definition.digest == "3065d3d012aab5d70363ca4b4a5e3fd1"


def test_a_flow_is_immutable() -> None:
    base = start().then(one)
    left, right = base.then(two), base.then(three)
    assert len(base.definition.nodes) == 1
    assert [node.name for node in left.definition.nodes] == ["one", "two"]
    assert [node.name for node in right.definition.nodes] == ["one", "three"]
    assert left.definition is left.definition
    assert list(right.tasks) == ["one", "three"]


class Order(BaseModel):
    total: int


def test_types_of_a_flow() -> None:
    flow = Flow("orders", input=Order)
    assert flow.input_type is Order
    assert flow.input_schema()["properties"]["total"]["type"] == "integer"
    assert flow.output_type is Order
    assert Flow("any").input_type is Any
    assert Flow("any").input_schema() == {}
    assert start().then(one).delay(1).output_type is int
    assert start().wait_for_signal(Signal("order", Order)).output_type is Order
    assert start().then(lambda n: n, name="it").output_type is Any
    assert start().fork().branch("a", one).join().output_type == dict[str, Any]
    assert start().route(sign).branch("plus", one).default_branch(two).end_route().output_type is int
    assert start().route(sign).branch("plus", one).default_branch(sign).end_route().output_type is Any


def test_all_tasks_of_a_flow_are_known() -> None:
    inner = Flow("inner", input=int).route(sign).default_branch(one).end_route()
    flow = start().fork().branch("a", inner).join(total).wait_for_signal(ANSWER, timeout=1, on_timeout=two)
    assert set(flow.tasks) == {"sign", "one", "total", "two"}
