"""The demo as a user starts it, on fewer modules: it ends well, its commands work, and it leaves no process."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.demo import place
from support.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"),
    pytest.mark.timeout(240),
    pytest.mark.xdist_group("demo"),
]

_MODULES = 40


class Demo:
    """Every process of it, however far removed, has the mark in its environment, or works in its directory: the server
    writes its title over its environment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._mark = f"HEADRACE_TEST_MARK={uuid.uuid4().hex}"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        name, _, value = self._mark.partition("=")
        return subprocess.Popen(
            [sys.executable, "-m", "headrace.cli", *arguments],
            cwd=self.directory,
            env={**os.environ, name: value},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def processes(self) -> list[int]:
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and self._is_ours(entry)]

    def _is_ours(self, entry: Path) -> bool:
        try:
            marked = self._mark.encode() in (entry / "environ").read_bytes().split(b"\0")
            return marked or (entry / "cwd").readlink().is_relative_to(self.directory)
        except OSError:
            return False


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path)
    yield made
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)


def test_nothing_is_lost_and_the_next_commands_work(demo: Demo) -> None:
    process = demo.start("demo", "--yes", "--dir", "here", "--modules", str(_MODULES))
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert said.startswith(f"Headrace demo: a durable flow over each of {_MODULES} modules")
    assert f"{_MODULES} stored, 0 lost, 0 twice" in said
    assert re.search(r"% stored: SIGKILL to a worker's child \(pid \d+\) and its keeper \(pid \d+\)", said)
    assert re.search(r"% stored: SIGKILL to the orchestrator \(pid \d+\)", said)
    assert re.search(r"Killed the worker: the next step completed \d+\.\d s later", said)
    assert re.search(r"Killed the orchestrator: the next step completed \d+\.\d s later", said)
    assert "Approved." in said
    assert (demo.directory / "here" / "report.md").read_text("utf-8").endswith("Approved by the demo.\n")
    assert demo.processes() == []

    next_commands = [line for line in said.partition("What it left")[2].splitlines() if line.startswith("  ")]
    assert len(next_commands) == 3
    for command in next_commands:
        program, *arguments = shlex.split(command)[2:]
        assert program == "headrace.cli"
        answer = demo.start(*arguments)
        shown, _ = answer.communicate(timeout=60)
        assert answer.returncode == 0, (command, shown)
        assert "completed" in shown
    assert demo.processes() == []


@pytest.mark.parametrize(
    ("number", "after"),
    [
        pytest.param(signal.SIGINT, "stored:", marks=pytest.mark.full_only),
        (signal.SIGTERM, "and RQ in processes"),
    ],
)
def test_a_signal_leaves_no_process(demo: Demo, number: signal.Signals, after: str) -> None:
    process = demo.start("demo", "--yes", "--dir", "here", "--modules", str(_MODULES))
    _read_until(process, after)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.endswith("Stopping everything.\n")
    assert demo.processes() == []


@pytest.mark.full_only
def test_after_sigkill_only_the_server_is_left_and_the_next_demo_ends_it(demo: Demo) -> None:
    process = demo.start("demo", "--yes", "--dir", "here", "--modules", str(_MODULES))
    _read_until(process, "stored:")
    assert len(demo.processes()) >= 6
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: len(demo.processes()) == 1, 30, "only the server is to live on")
    with place.take(demo.directory / "here"):
        assert demo.processes() == []


def _read_until(process: subprocess.Popen[str], start: str) -> None:
    assert process.stdout is not None
    assert any(line.startswith(start) for line in process.stdout), "it ended before"
