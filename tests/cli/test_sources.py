"""Which files targets are made of, and when a change of them counts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.cli.loading import load_apart
from headrace.cli.sources import QUIET_SECONDS, Changes

Write = Callable[..., Path]

APP = "from headrace import Flow, task\n\n@task\ndef one() -> int:\n    return 1\n\nflow = Flow('flow').then(one)\n"
NEVER = threading.Event()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file of the project, which is the current directory."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_a_change_counts_once_when_it_has_settled(write: Write) -> None:
    app, other = write("app.py", "1"), write("other.py", "1")
    changes = Changes([app, other])
    assert changes.settled(0) == []
    write("app.py", "22")
    assert changes.settled(10) == [], "more may come"
    write("app.py", "333")
    assert changes.settled(10 + QUIET_SECONDS) == [], "more came"
    assert changes.settled(10 + 2 * QUIET_SECONDS) == [app]
    assert changes.settled(20) == []


def test_a_file_may_go_and_come(write: Write) -> None:
    app = write("app.py", "1")
    changes = Changes([app, app.with_name("missing.py")])
    app.unlink()
    write("missing.py", "1")
    changes.settled(0)
    assert [path.name for path in changes.settled(1)] == ["app.py", "missing.py"]


def test_another_file_in_its_place_is_a_change(write: Write) -> None:
    app = write("app.py", "1")
    stamp = app.stat()
    changes = Changes([app])
    new = write("app.tmp", "2")
    os.utime(new, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    new.replace(app)
    changes.settled(0)
    assert changes.settled(1) == [app]


def test_what_changed_before_files_are_watched_anew_is_not_forgotten(write: Write) -> None:
    app, new = write("app.py", "1"), write("new.py", "1")
    changes = Changes([app])
    write("app.py", "22")
    changes.watch([app, new])
    changes.settled(0)
    assert changes.settled(1) == [app]
    assert changes.files == {app, new}


def test_the_files_are_those_imported_from_the_project(write: Write) -> None:
    path = "import sys; sys.path.append('venv/lib/site-packages')"
    app = write("app.py", f"{path}\nimport json\nimport pydantic\nimport shop.prices\nimport vendored\n{APP}")
    package, prices = write("shop/__init__.py", ""), write("shop/prices.py", "from .taxes import TAX")
    taxes = write("shop/taxes.py", "TAX = 1")
    write("shop/unused.py", "")
    write("venv/lib/site-packages/vendored.py", "")
    found = load_apart([f"{app}:flow"], NEVER)
    assert found is not None
    assert (found.error, found.flows, found.tasks) == (None, ("flow",), ("one",))
    assert found.files == {app, package, prices, taxes}


def test_a_module_is_a_target_too(write: Write) -> None:
    flows = write("shop/flows.py", APP)
    found = load_apart(["shop.flows"], NEVER)
    assert found is not None
    assert flows in found.files


@pytest.mark.parametrize(
    ("helper", "complaint"),
    [
        ("X = (", "SyntaxError: '(' was never closed"),
        (None, "ModuleNotFoundError: No module named 'helper'"),
        ("import os; os._exit(3)", "importing it ended the process, with exit code 3"),
        ("print('{}'); raise SystemExit(1)", "it calls sys.exit(1) when imported"),
    ],
)
def test_what_cannot_be_loaded_says_why_and_what_may_mend_it(write: Write, helper: str | None, complaint: str) -> None:
    app = write("app.py", f"import helper\n{APP}")
    if helper is not None:
        write("helper.py", helper)
    found = load_apart(["app.py"], NEVER)
    assert found is not None
    assert found.error is not None
    assert complaint in found.error
    if "os._exit" not in (helper or ""):
        assert {app, app.with_name("helper.py")} <= found.files


def test_an_import_that_does_not_end_is_given_up(write: Write) -> None:
    write("app.py", "import time; time.sleep(600)")
    found = load_apart(["app.py"], NEVER, deadline=1)
    assert found is not None
    assert found.error == "importing it did not end within 1 s"
    stopped = threading.Event()
    stopped.set()
    assert load_apart(["app.py"], stopped) is None
