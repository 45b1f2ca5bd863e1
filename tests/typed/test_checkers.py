"""The builder's types, as the two checkers see them (DESIGN 7: a wrong step is a type error)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHECKERS = {"mypy": ("--follow-imports=silent",), "pyright": ()}

pytestmark = pytest.mark.timeout(180)  # mypy without a cache takes its time


def check(checker: str, *files: Path) -> tuple[int, str]:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed (extra: dev)")
    command = [sys.executable, "-m", checker, *CHECKERS[checker], *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.full_only
@pytest.mark.parametrize("checker", CHECKERS)
def test_right_programs_pass_and_each_wrong_line_is_rejected(checker: str) -> None:
    code, output = check(checker, HERE / "good.py", HERE / "bad.py")
    assert code == 0, output


@pytest.mark.full_only
@pytest.mark.parametrize("checker", CHECKERS)
def test_a_wrong_line_that_passed_would_be_seen(checker: str, tmp_path: Path) -> None:
    text = (HERE / "bad.py").read_text()
    passing = tmp_path / "passing.py"
    passing.write_text(text + "\nflow.then(to_text)  # type: ignore[arg-type]\n")
    code, output = check(checker, passing)
    line = len(text.splitlines()) + 2
    assert code == 1, output
    assert f"passing.py:{line}" in output, output
