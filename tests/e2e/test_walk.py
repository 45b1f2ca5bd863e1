"""The newcomer's walk: the tutorial and nothing else, from an empty directory to a deployment that is killed.

`docs/sessions.py` types what docs/tutorial.md says, in real shells, and compares what they show. What a newcomer has
and this machine has not: the package in an index. So the wheel is built and named in its place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs.pages import ROOT, hidden, not_run
from docs.sessions import Session

from support.ports import free_port, is_free
from support.terminal import Person
from support.traces import Traces

TUTORIAL = ROOT / "docs/tutorial.md"

pytestmark = [pytest.mark.full_only, pytest.mark.timeout(300)]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    into = tmp_path / "wheel"
    made: list[str | Path] = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", into, ROOT]
    subprocess.run(made, check=True, timeout=200, env=_environment())
    return next(into.glob("headrace-*.whl"))


@pytest.mark.skipif(
    shutil.which("redis-server") is None and "CI" not in os.environ, reason="redis-server is not installed"
)
def test_the_tutorial_from_nothing_to_a_deployment_that_was_killed(wheel: Path, tmp_path: Path) -> None:
    assert not list(hidden(TUTORIAL))
    assert not not_run(TUTORIAL)
    home, screens = tmp_path / "home", tmp_path / "screens"
    home.mkdir()
    screens.mkdir()
    port = free_port()
    here = {"'headrace[": f"'{wheel}[", "6380": str(port)}
    with Traces() as traces:
        environment = _environment() | {"HEADRACE_METRICS_PORT": str(free_port()), **traces.environment}
        with Person(home, environment, screens) as person:
            walked = list(Session(TUTORIAL, person, home, here).play())
            person.leave()
            traces.assert_none(10)
            assert is_free(port)  # the server wrote its title over the mark
    commands = [command for command, _ in walked]
    for milestone in ("headrace init", "headrace dev app.py", "headrace dev trips.py", "kill -9 %- %+"):
        assert milestone in commands
    _, recovery = next(step for step in walked if step[0] == "headrace watch trip-2")
    assert "redelivered" in recovery
    assert recovery.count("completed         reserve") == 1
    assert recovery.endswith('result\n"booked: Grace to Oslo"\n')
    doctors = [said for command, said in walked if command == "headrace doctor"]
    assert doctors[-1].endswith("all is well\n")
    assert not [path for path in home.rglob("*") if path.is_socket()]


def _environment() -> dict[str, str]:
    """A newcomer's: neither our environment nor our settings, and the Python that ours is made of."""
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL", "HEADRACE_"))
    }
    path = [place for place in os.environ["PATH"].split(":") if Path(place) != Path(sys.prefix) / "bin"]
    return ours | {"PATH": ":".join([f"{sys.base_prefix}/bin", *path])}
