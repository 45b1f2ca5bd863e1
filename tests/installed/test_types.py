"""A project that uses the installed wheel type-checks strictly: the types of all four packages arrive (`py.typed`)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Environment

pytestmark = [pytest.mark.xdist_group("installed"), pytest.mark.full_only, pytest.mark.timeout(180)]

SETTINGS = """
[tool.pyright]
typeCheckingMode = "strict"
pythonVersion = "3.11"

[tool.mypy]
strict = true
python_version = "3.11"
"""
APP = """
from headrace import Client, Flow, Handle, task
from headrace.errors import InstanceFailed
from headrace_broker.durations import parse_duration
from headrace_orchestrator.options import OrchestratorOptions
from headrace_workers.process import WorkerOptions

@task
def double(number: int) -> int:
    return 2 * number

numbers = Flow("numbers", input=int).then(double)
options = (OrchestratorOptions, WorkerOptions, parse_duration("5s"))

async def main() -> int:
    async with Client("redis://localhost:6379/0") as client:
        handle: Handle[int] = await client.start(numbers, 21)
        try:
            return await handle.result()
        except InstanceFailed as error:
            return len(error.ids)
"""
WRONG = '\nwrong: str = parse_duration("5s")\nFlow("texts", input=str).then(double)\n'
CHECKERS = {"mypy": "--python-executable={python}", "pyright": "--pythonpath={python}"}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_project_that_uses_the_wheel_is_checked_strictly(
    checker: str, installed: Environment, tmp_path: Path
) -> None:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed (extra: dev)")
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "wrong.py").write_text(APP + WRONG)
    command = [sys.executable, "-m", checker, CHECKERS[checker].format(python=installed.python), "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    complaints = [line for line in done.stdout.splitlines() if ": error:" in line or "- error:" in line]
    first = len((APP + WRONG).splitlines()) - 1
    assert all("wrong.py" in line for line in complaints), output
    assert all(any(f"wrong.py:{line}" in complaint for complaint in complaints) for line in (first, first + 1)), output
    assert len(complaints) <= 3, output
