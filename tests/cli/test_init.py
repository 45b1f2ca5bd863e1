"""`headrace init`: a first file that runs as printed, and harms nothing that is there."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support.waiting import wait_until

from .conftest import Headrace
from .dev_process import Dev


@pytest.mark.timeout(120)
def test_what_it_prints_can_be_typed_and_works(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headrace.cli", "init"]
    first, *others = _printed(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)
    assert first[0] == "dev"
    dev = Dev(tmp_path, *first[1:])
    try:
        wait_until(lambda: "Ctrl-C stops all" in dev.said(), 30, "dev to be up")
        started, watched, waited = (dev.run(*command) for command in others)
    finally:
        assert dev.stop() == 0
    assert (started.returncode, started.stdout) == (0, "hello-1\n"), started.stderr
    assert (watched.returncode, watched.stdout.splitlines()[-1]) == (0, '"HELLO, ADA!"'), watched.stderr
    facts = [" ".join(line.split()[2:4]) for line in watched.stdout.splitlines()[:-2]]
    assert [fact for fact in facts if fact.split()[0] in ("attempt", "retry", "timer", "ended")] == [
        *("attempt failed", "retry scheduled", "timer started", "timer fired", "ended completed")
    ]
    assert (waited.returncode, waited.stdout) == (0, '"HELLO, GRACE!"\n'), waited.stderr


def test_the_app_has_ten_lines(headrace: Headrace, tmp_path: Path) -> None:
    assert headrace("init", "first app.py").code == 0
    text = (tmp_path / "first app.py").read_text()
    statements = ast.parse(text).body[1:]  # behind the docstring
    first = min(node.lineno for node in statements)
    assert len([line for line in text.splitlines()[first - 1 :] if line]) == 10


def test_a_name_is_printed_as_the_shell_takes_it(headrace: Headrace) -> None:
    assert ("dev", "first app.py") in _printed(headrace("init", "first app.py").out)


def test_what_is_there_is_left_alone(headrace: Headrace, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("mine")
    outcome = headrace("init")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: app.py is there already, and is left as it is.")
    assert (tmp_path / "app.py").read_text() == "mine"
    suggested = re.findall(r"headrace init (\S+)", outcome.err)
    assert headrace("init", *suggested).code == 0


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("app.txt", "whose name ends in .py; got 'app.txt'"),
        ("here/app.py", "There is no directory here"),
        ("json.py", "would hide the module 'json'"),
        ("headrace.py", "would hide the module 'headrace'"),
        ("pydantic.py", "would hide the module 'pydantic'"),
    ],
)
def test_a_name_of_no_use_is_exit_code_2(headrace: Headrace, tmp_path: Path, file: str, complaint: str) -> None:
    outcome = headrace("init", file)
    assert (outcome.code, outcome.out) == (2, "")
    assert complaint in outcome.err
    assert not list(tmp_path.iterdir())


def _printed(text: str) -> list[tuple[str, ...]]:
    """The commands to type, without `headrace`."""
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert all(line.startswith("headrace ") for line in lines)
    return [tuple(shlex.split(line)[1:]) for line in lines]
