"""`headrace start FLOW --each FILE`: all lines are checked before the first is started."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Headrace, Outcome

FLOWS = """
from pydantic import BaseModel
from headrace import Flow, task

class Order(BaseModel):
    id: str | int
    total: int = 1

orders = Flow("orders", input=Order).delay("1h")
"""


@pytest.fixture
def target(headrace: Headrace, tmp_path: Path) -> str:
    (tmp_path / "shop.py").write_text(FLOWS)
    return "shop.py:orders"


def write(path: Path, *lines: object) -> str:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path.name


def listed(headrace: Headrace, here: tuple[str, ...]) -> set[str]:
    return {item["id"] for item in headrace("ls", *here, "--json", "--limit", "1000").json["items"]}


def rows(outcome: Outcome) -> list[Any]:
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_each_line_starts_an_instance(headrace: Headrace, here: tuple[str, ...], target: str, tmp_path: Path) -> None:
    file = write(tmp_path / "orders.jsonl", *({"id": str(n)} for n in range(700)))
    outcome = headrace("start", target, "--each", file, "--id", "order-{id}", "--actor", "ann", *here)
    assert (outcome.code, outcome.out, outcome.err) == (0, "700 started\n", "")
    assert listed(headrace, here) == {f"order-{n}" for n in range(700)}
    assert headrace("show", "order-5", *here, "--json").json["instance"]["actor"] == "ann"


def test_one_object_per_line_tells_what_became_of_it(
    headrace: Headrace, here: tuple[str, ...], target: str, tmp_path: Path
) -> None:
    headrace("start", target, "--input", '{"id": 2}', "--id", "o2", *here)
    file = write(tmp_path / "orders.jsonl", {"id": 1}, "", {"id": 2}, "   ", {"id": 3})
    outcome = headrace("start", "orders", "--each", file, "--id", "o{id}", "--json", *here)
    first, second, third = rows(outcome)
    assert (outcome.code, outcome.err) == (1, "")
    assert [(row["line"], row["id"]) for row in (first, second, third)] == [(1, "o1"), (3, "o2"), (5, "o3")]
    assert (first["existing"], second["error"]["code"], set(third)) == (
        *(False, "instance_exists"),
        {"line", "id", "incarnation", "existing"},
    )
    again = headrace("start", "orders", "--each", file, "--id", "o{id}", "--conflict", "use_existing", *here)
    assert (again.code, again.out) == (0, "0 started, 3 existing\n")


def test_what_is_refused_is_told_by_line(
    headrace: Headrace, here: tuple[str, ...], target: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "orders.jsonl", {"id": 1}, {"id": 2}, {"id": 1})
    outcome = headrace("start", target, "--each", file, "--id", "o{id}", *here)
    assert (outcome.code, outcome.out) == (1, "2 started, 1 refused\n")
    assert outcome.err.startswith("line 3: An instance of id 'o1' is live")


def test_without_ids_they_are_random_and_a_line_number_may_be_one(
    headrace: Headrace, here: tuple[str, ...], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def typed() -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BytesIO(b'\xef\xbb\xbf{"id": "\xc3\xbc"}\n\n{"id": 2}'))

    monkeypatch.setattr("sys.stdin", typed())
    assert headrace("start", target, "--each", "-", *here).out == "2 started\n"
    monkeypatch.setattr("sys.stdin", typed())
    assert headrace("start", target, "--each", "-", "--id", "run7-{#}", *here).code == 0
    assert len(listed(headrace, here)) == 4
    assert {"run7-1", "run7-3"} < listed(headrace, here)


@pytest.mark.parametrize("by_name", [False, True])
def test_nothing_starts_if_a_line_is_bad(
    headrace: Headrace, here: tuple[str, ...], target: str, tmp_path: Path, by_name: bool
) -> None:
    headrace("start", target, "--input", '{"id": 0}', "--id", "first", *here)
    bad = ["{bad", {"total": 2}, {"id": True}, '{"id": NaN}', {"id": "x" * 300}, {"id": [1]}, {"id": "\n"}]
    file = write(tmp_path / "orders.jsonl", *({"id": str(n)} for n in range(600)), *bad)
    outcome = headrace("start", "orders" if by_name else target, "--each", file, "--id", "{id}", *here)
    first, *named, last = outcome.err.splitlines()
    assert (outcome.code, outcome.out) == (2, "")
    assert first == "error: orders.jsonl: 7 bad lines; nothing was started."
    assert [line.partition(":")[0] for line in named] == [f"line {n}" for n in range(601, 606)]
    assert named[0] == (
        "line 601: not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1); "
        "got '{bad\\n'."
    )
    assert named[1].endswith("--id has {id}, but the input has no text or whole number 'id'.")
    assert last == "and 2 more"
    assert listed(headrace, here) == {"first"}


def test_an_input_that_does_not_validate_is_named(
    headrace: Headrace, here: tuple[str, ...], target: str, tmp_path: Path
) -> None:
    (tmp_path / "orders.jsonl").write_bytes(b'{"id": 1}\n{"id": 1, "total": "many"}\n\xff\n')
    outcome = headrace("start", target, "--each", "orders.jsonl", *here)
    assert outcome.code == 2
    assert "line 2: The input of flow 'orders' does not validate: total: " in outcome.err
    assert "line 3: not UTF-8: " in outcome.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--each", "missing.jsonl"), "error: --each missing.jsonl: the file cannot be read"),
        (("--each", "x", "--input", "1"), "error: --each has its inputs from FILE and does not wait"),
        (("--each", "x", "--wait"), "error: --each has its inputs from FILE and does not wait"),
        (("--each", "x", "--id", "same"), "error: With --each, --id is made of each input"),
    ],
)
def test_wrong_options_are_exit_code_2(
    headrace: Headrace, here: tuple[str, ...], target: str, arguments: tuple[str, ...], complaint: str
) -> None:
    outcome = headrace("start", target, *arguments, *here)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(complaint)


@pytest.mark.real_only
def test_ctrl_c_says_how_far_it_came(here: tuple[str, ...], target: str, tmp_path: Path) -> None:
    file = write(tmp_path / "orders.jsonl", *({"id": n} for n in range(20_000)))
    command = [sys.executable, "-m", "headrace.cli", "start", target, "--each", file, "--json", *here]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["line"] == 1
    process.send_signal(signal.SIGINT)
    answered = len(process.stdout.readlines()) + 1
    _, complaints = process.communicate(timeout=30)
    assert process.returncode == 130
    assert complaints.startswith(f"{answered:,} of 20,000 lines were answered; some that follow may have been started.")
