"""The parts of the demo that count and judge."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.demo import checks, flow, histories, modules, place, reporting
from headrace.demo.histories import Completion, Story
from headrace.demo.ledger import Ledger
from headrace.demo.modules import Complexity, Docstrings, Facts, Module, Size
from headrace_broker.embedded import EmbeddedServer
from headrace_broker.errors import ConfigurationError
from headrace_broker.locate import runs_in
from headrace_broker.queries import HistoryEvent

START = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = [node.name for node in flow.survey.definition.nodes if node.kind == "task"]


def facts_of(module: str, lines: int = 3) -> Facts:
    return Facts(module, Size(module, 10, lines, 0, 0), ["os"], Docstrings(1, 1, 2), Complexity(1, 2, 3, "f", 2))


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def event(kind: str, seconds: float = 0, node: str | None = None, **fields: Any) -> HistoryEvent:
    return HistoryEvent(at(seconds), kind, node, fields)


def completed(node: str, seconds: float = 0, worker: str = "host-7-abc.1") -> HistoryEvent:
    return event("completed", seconds, node, frame=0, branch=0, worker=worker)


def whole(id: str, *more: HistoryEvent) -> Story:
    return histories.fold(id, [*(completed(step) for step in STEPS), *more, event("ended", status="completed")])


# The ledger.


def test_a_second_write_of_a_step_is_counted_and_makes_no_row(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.create()
    assert ledger.store("key", "d1", facts_of("a"))
    assert not ledger.store("key", "d2", facts_of("a", lines=4))
    assert (ledger.rows(), ledger.writes()) == (1, 2)
    assert ledger.stored() == [("a", facts_of("a").to_json())]


def test_many_threads_write_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.create()

    def store(number: int) -> None:
        ledger.store(f"key{number % 8}", f"d{number}", facts_of("a"))

    threads = [threading.Thread(target=store, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (ledger.rows(), ledger.writes()) == (8, 16)


def test_the_report_is_the_same_for_the_same_facts(tmp_path: Path) -> None:
    rows = [json.loads(facts_of(name).to_json()) for name in ("a", "b")]
    text = reporting.report("Title", rows)
    assert "* modules: 2\n" in text
    assert "1. a.f: 2\n1. b.f: 2\n" in text
    assert "1. os: 2\n" in text
    assert reporting.report("Title", list(reversed(rows))) == text
    assert reporting.write(tmp_path, text).read_text("utf-8") == text


# Histories.


def test_a_history_is_folded() -> None:
    story = histories.fold(
        "a",
        [
            event("started"),
            completed("read", 1),
            event("retry_scheduled", 2, "parse"),
            event("redelivered", 3, "parse", cause="lost"),
            event("redelivered", 4, "parse", cause="returned"),
            completed("parse", 5, "host-8-def.1"),
            event("ended", 6, status="completed"),
        ],
    )
    assert (story.status, story.retries, story.lost) == ("completed", 1, [at(3)])
    assert story.completed == [Completion(at(1), "host-7-abc.1"), Completion(at(5), "host-8-def.1")]
    assert story.completions == {("read", 0, 0): 1, ("parse", 0, 0): 1}


def test_an_instance_that_has_not_ended_is_seen() -> None:
    assert histories.fold("a", [event("started")]).status == "0 ends"


def test_recovery_is_measured_from_the_kill() -> None:
    story = Story(
        "a",
        "completed",
        completed=[
            Completion(at(1), "host-7-abc.1"),
            Completion(at(3), "host-7-abc.1"),
            Completion(at(4), "host-8-d.1"),
        ],
        lost=[at(3.5), at(9)],
    )
    assert histories.next_completion([story], at(2)) == timedelta(seconds=1)
    assert histories.next_completion([story], at(2), not_by="-7-") == timedelta(seconds=2)
    assert histories.next_completion([story], at(5)) is None
    assert histories.handed_out_again([story], at(2), at(8)) == (1, timedelta(seconds=1.5))
    assert histories.handed_out_again([story], at(4), at(8)) is None


# Checks.


def judge(
    stories: list[Story], stored: list[tuple[str, str]], plain: dict[str, str]
) -> tuple[checks.Result, list[str]]:
    wanted = [Module(name, "") for name in ("a", "b")]
    result = checks.count(wanted, stories, stored, writes=2)
    return result, checks.problems(result, wanted, stories, dict(stored), plain)


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """No retries are expected."""

    def never(module: str) -> bool:
        return False

    monkeypatch.setattr(modules, "stumbles", never)


LOST = event("redelivered", cause="lost")


@pytest.mark.usefixtures("calm")
def test_all_is_well() -> None:
    result, problems = judge([whole("a", LOST), whole("b")], [("a", "1"), ("b", "2")], {"a": "1", "b": "2"})
    assert problems == []
    assert result == checks.Result(2, 2 * len(STEPS), 0, 1, 2, 2, 0, 0)


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(
    ("stories", "stored", "said"),
    [
        ([whole("a"), whole("b")], [("a", "1"), ("b", "2")], "nothing was redelivered"),
        ([whole("a", LOST), whole("b")], [("a", "1")], "2 rows were expected, 1 found"),
        ([whole("a", LOST), whole("b")], [("a", "1"), ("a", "1"), ("b", "2")], "2 rows were expected, 3 found"),
        ([whole("a", LOST), whole("b")], [("a", "1"), ("b", "X")], "something else for b"),
        ([whole("a", LOST), Story("b", "failed")], [("a", "1"), ("b", "2")], "not completed: b"),
        ([whole("a", LOST), whole("b", completed("read"))], [("a", "1"), ("b", "2")], "completion per step: b"),
        ([whole("a", LOST, event("retry_scheduled")), whole("b")], [("a", "1"), ("b", "2")], "0 retries were expected"),
    ],
)
def test_what_is_wrong_is_said(stories: list[Story], stored: list[tuple[str, str]], said: str) -> None:
    _, problems = judge(stories, stored, {"a": "1", "b": "2"})
    assert [problem for problem in problems if said in problem], problems


def test_lost_and_twice_are_counted() -> None:
    result, _ = judge([Story("a", "completed", Counter())], [("a", "1"), ("a", "1")], {})
    assert (result.lost, result.twice) == (1, 1)


# The directory.


def test_a_directory_that_is_not_the_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    with pytest.raises(ConfigurationError, match="not from a demo"), place.take(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["appendonlydir"]


def test_a_second_run_begins_afresh_and_keeps_what_is_not_its_own(tmp_path: Path) -> None:
    with place.take(tmp_path) as taken:
        Ledger(taken.directory).create()
        (tmp_path / "notes.txt").touch()
        with pytest.raises(ConfigurationError, match="A demo runs in"), place.take(tmp_path):
            pass
    with place.take(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["headrace-demo.lock", "notes.txt"]


def test_the_server_of_a_killed_demo_is_stopped(tmp_path: Path) -> None:
    with place.take(tmp_path):
        left = EmbeddedServer.open(tmp_path)
    try:
        with place.take(tmp_path):
            assert not runs_in(tmp_path)
            assert not (tmp_path / "appendonlydir").exists()
    finally:
        left.close()


def test_commands_are_printed_as_they_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "headrace"
    program.touch(mode=0o755)
    taken = place.Place(Path("my data"), tmp_path / "my data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert taken.command("show", "a") == "bin/headrace show a --url 'embedded://my data' --namespace demo"
    monkeypatch.setenv("PATH", str(program.parent))
    assert taken.command("ls") == "headrace ls --url 'embedded://my data' --namespace demo"
    monkeypatch.setattr(sys, "argv", ["/x/headrace/cli/__main__.py"])
    assert taken.command("ls").startswith(f"{sys.executable} -m headrace.cli ls ")
