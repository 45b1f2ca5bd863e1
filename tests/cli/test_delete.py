"""`headrace delete`: one or many, what it prints, what it refuses, its exit codes."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from time import monotonic

import pytest
from prometheus_client import CollectorRegistry

from headrace_broker.connection import Link, Server
from headrace_broker.conversations import converse
from headrace_broker.namespace import Namespace, open_namespace
from headrace_broker.registry import current_flow
from headrace_broker.retention import Retention, Rule
from headrace_orchestrator.metrics import Metrics
from headrace_orchestrator.options import OrchestratorOptions
from headrace_orchestrator.orchestrator import Orchestrator
from support.waiting import wait_until

from .conftest import Headrace

pytestmark = pytest.mark.real_only

FLOWS = """
from headrace import Flow, Retention, Signal
go = Signal("go", bool)
orders = Flow("orders", retention=Retention("1h", "forever", 50)).wait_for_signal(go)
other = Flow("other").wait_for_signal(go)
"""


class Backstage:
    """An orchestrator that works when it is told to."""

    def __init__(self, url: str, namespace: str) -> None:
        self.link: Link = Server(url).connect()
        self.namespace: Namespace = converse(self.link, open_namespace(namespace))
        options = OrchestratorOptions(url=url, namespace=namespace)
        metrics = Metrics(CollectorRegistry())
        self._orchestrator = Orchestrator(
            *(Server(url), self.namespace.keys, self.namespace.partitions, options, metrics),
            monotonic=monotonic,
            random=Random(0),
        )

    def settle(self) -> None:
        idle = 0
        while idle < 3:
            idle = 0 if self._orchestrator.step(0) else idle + 1

    @contextmanager
    def running(self) -> Generator[None]:
        stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                self._orchestrator.step(10)

        thread = threading.Thread(target=run)
        thread.start()
        yield
        stop.set()
        thread.join()

    def close(self) -> None:
        self._orchestrator.close()
        self.link.close()


@pytest.fixture
def backstage(server_url: str, namespace: str, here: tuple[str, ...]) -> Iterator[Backstage]:
    made = Backstage(server_url, namespace)
    yield made
    made.close()


@pytest.fixture
def start(headrace: Headrace, here: tuple[str, ...], tmp_path: Path, backstage: Backstage) -> Starter:
    (tmp_path / "shop.py").write_text(FLOWS)
    return Starter(headrace, here, backstage)


class Starter:
    def __init__(self, headrace: Headrace, here: tuple[str, ...], backstage: Backstage) -> None:
        self._headrace = headrace
        self._here = here
        self._backstage = backstage

    def __call__(self, *ids: str, flow: str = "orders", cancel: bool = True) -> None:
        for id in ids:
            assert self._headrace("start", f"shop.py:{flow}", "--id", id, *self._here).code == 0
            if cancel:
                assert self._headrace("cancel", id, *self._here).code == 0
        self._backstage.settle()


def listed(headrace: Headrace, here: tuple[str, ...]) -> set[str]:
    return {item["id"] for item in headrace("ls", "--json", *here).json["items"]}


def test_one(headrace: Headrace, here: tuple[str, ...], start: Starter, backstage: Backstage) -> None:
    start("a", "b", "c")
    assert headrace("delete", "a", *here).out == "delete of a requested\n"
    assert headrace("delete", "b", "--json", *here).json == {"id": "b", "delete": "requested"}
    backstage.settle()
    assert listed(headrace, here) == {"c"}
    gone = headrace("show", "a", *here)
    assert (gone.code, gone.err) == (3, "error: No instance of id 'a' is known. List those there are: headrace ls\n")
    assert headrace("delete", "a", *here).code == 3


def test_a_live_one_is_exit_code_1(headrace: Headrace, here: tuple[str, ...], start: Starter) -> None:
    start("a", cancel=False)
    refused = headrace("delete", "a", *here)
    assert refused.code == 1
    assert "Instance 'a' is waiting; only what has ended can be deleted. Cancel it first: headrace " in refused.err


def test_force_cancels_first(headrace: Headrace, here: tuple[str, ...], start: Starter, backstage: Backstage) -> None:
    start("a", cancel=False)
    with backstage.running():
        assert headrace("delete", "a", "--force", *here).code == 0
        wait_until(lambda: listed(headrace, here) == set(), why="the deletion")


def test_many_by_flow_and_time(headrace: Headrace, here: tuple[str, ...], start: Starter, backstage: Backstage) -> None:
    start("a", "b")
    start("c", flow="other")
    start("live", cancel=False)
    hour = timedelta(hours=1)
    past, future = ((datetime.now(UTC) + by).isoformat() for by in (-hour, hour))
    assert headrace("delete", "--before", past, "--yes", *here).out == "delete of 0 instances requested\n"
    done = headrace("delete", "--flow", "orders", "--before", future, "--yes", "--json", *here)
    assert (done.code, done.json) == (0, {"deleted": 2})
    backstage.settle()
    assert listed(headrace, here) == {"c", "live"}
    assert headrace("delete", "--status", "cancelled", "-y", *here).out == "delete of 1 instances requested\n"
    backstage.settle()
    assert listed(headrace, here) == {"live"}


def test_many_include_earlier_uses_of_an_id(
    headrace: Headrace, here: tuple[str, ...], start: Starter, backstage: Backstage
) -> None:
    start("a")
    start("a")
    start("a", cancel=False)
    assert headrace("delete", "--flow", "orders", "--yes", "--json", *here).json == {"deleted": 2}
    backstage.settle()
    assert [item["status"] for item in headrace("ls", "--json", *here).json["items"]] == ["waiting"]


def test_nobody_to_be_asked_is_exit_code_2(headrace: Headrace, here: tuple[str, ...], start: Starter) -> None:
    start("a")
    refused = headrace("delete", "--flow", "orders", *here)
    assert (refused.code, "1 instances would be deleted for good" in refused.err) == (2, True)
    assert listed(headrace, here) == {"a"}


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, set[str]()), ("n\n", 1, {"a"})])
def test_it_asks(
    headrace: Headrace,
    here: tuple[str, ...],
    start: Starter,
    backstage: Backstage,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
    left: set[str],
) -> None:
    start("a")
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    asked = headrace("delete", "--flow", "orders", *here)
    assert (asked.code, asked.out) == (code, "" if code else "delete of 1 instances requested\n")
    assert "1 instances will be deleted for good" in asked.err
    backstage.settle()
    assert listed(headrace, here) == left


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "error: Say what to delete: an ID, or some of --flow, --status and --before; not both."),
        (("a", "--flow", "orders"), "error: Say what to delete"),
        (("--flow", "orders", "--force"), "error: --force goes with an ID"),
        (("--status", "running"), "error: --status is one of cancelled, completed, failed, terminated; got 'running'."),
        (("--before", "yesterday"), "error: --before is a time such as"),
    ],
)
def test_what_cannot_be_meant_is_exit_code_2(
    headrace: Headrace, here: tuple[str, ...], arguments: tuple[str, ...], complaint: str
) -> None:
    refused = headrace("delete", *arguments, *here)
    assert refused.code == 2
    assert refused.err.startswith(complaint)


def test_a_flow_s_retention_is_registered_with_it(start: Starter, backstage: Backstage) -> None:
    start("a")
    record = converse(backstage.link, current_flow(backstage.namespace.keys, "orders"))
    assert record.retention.over(Rule()) == Retention("1h", "forever", 50).over(Rule())


class Terminal:
    """A stdin with somebody before it."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self, size: int = -1) -> str:
        answer, self._answer = self._answer, ""
        return answer
