"""`headrace dev`: one command, and flows run; what dies comes back; Ctrl-C leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace_broker.locate import runs_in
from support.waiting import wait_until

FLOWS = """
from headrace import Flow, task

@task
def double(n: int) -> int:
    return n * 2

doubling = Flow("doubling", input=int).then(double)
"""

pytestmark = pytest.mark.timeout(120)


class Dev:
    def __init__(self, directory: Path, *targets: str) -> None:
        self.directory = directory
        self.log = directory / "dev.log"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headrace.cli", "dev", *targets],
                cwd=directory,
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    def said(self) -> str:
        return self.log.read_text()

    def pids(self, name: str) -> list[int]:
        return [int(pid) for pid in re.findall(rf"^{name} +runs, pid (\d+)", self.said(), re.MULTILINE)]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "headrace.cli", *arguments],
            cwd=self.directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    (tmp_path / "flows.py").write_text(FLOWS)
    dev = Dev(tmp_path, "flows.py")
    yield dev
    if dev.process.poll() is None:
        dev.process.send_signal(signal.SIGINT)
        dev.process.wait(30)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_flows_run_survive_deaths_and_nothing_is_left(dev: Dev) -> None:
    wait_until(lambda: "Ctrl-C stops all" in dev.said(), 30, "dev to be up")
    assert "embedded://.headrace (started" in dev.said()
    first = dev.run("start", "flows.py:doubling", "--input", "21", "--wait", "--timeout", "30s", "--id", "one")
    assert (first.returncode, first.stdout) == (0, "42\n"), first.stderr
    for name in ("worker", "orchestrator"):
        os.kill(dev.pids(name)[0], signal.SIGKILL)
        wait_until(lambda name=name: len(dev.pids(name)) == 2, 20, f"{name} to be started again")  # type: ignore[misc]
    second = dev.run("start", "doubling", "--input", "4", "--wait", "--timeout", "60s")
    assert (second.returncode, second.stdout) == (0, "8\n"), second.stderr
    assert "died: killed by SIGKILL" in dev.said()
    shown = dev.run("show", "one")
    assert "completed" in shown.stdout
    dev.process.send_signal(signal.SIGINT)
    assert dev.process.wait(30) == 0
    assert dev.said().endswith("stopped\n")
    assert all(gone(pid) for name in ("worker", "orchestrator") for pid in dev.pids(name))
    assert not runs_in(dev.directory / ".headrace")


def test_a_second_ctrl_c_stops_at_once(dev: Dev) -> None:
    wait_until(lambda: "Ctrl-C stops all" in dev.said(), 30, "dev to be up")
    for name in ("worker", "orchestrator"):
        os.kill(dev.pids(name)[0], signal.SIGSTOP)  # which cannot take its SIGTERM
    dev.process.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping" in dev.said())
    dev.process.send_signal(signal.SIGINT)
    assert dev.process.wait(10) == 0
    assert all(gone(pid) for name in ("worker", "orchestrator") for pid in dev.pids(name))


def test_a_bad_target_is_told_before_anything_starts(tmp_path: Path) -> None:
    dev = Dev(tmp_path, "missing.py")
    assert dev.process.wait(30) == 2
    assert dev.said().startswith("error: Target 'missing.py': there is no file")
    assert not (tmp_path / ".headrace").exists()
