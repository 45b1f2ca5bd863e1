"""`headrace dev` and its author: code that changes is taken, code that is broken is not, and instances go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import Client
from support.waiting import wait_until, wait_until_async

from .dev_process import Dev

APP = """
import time
from pathlib import Path
from headrace import Flow, Signal, task
from words import WORD

@task
def hold(name: str) -> str:
    Path("holding").touch()
    while not Path("let-go").exists():
        time.sleep(0.01)
    return name

@task
def greet(name: str) -> str:
    return f"{WORD}, {name}!"

go = Signal("go", str)
waits = Flow("waits", input=str).wait_for_signal(go).then(greet)
holds = Flow("holds", input=str).then(hold).then(greet)
"""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "words.py").write_text("WORD = 'Hello'\n")
    dev = Dev(tmp_path, "app.py")
    try:
        wait_until(lambda: "Ctrl-C stops all" in dev.said(), 30, "dev to be up")
        yield dev
    finally:
        dev.stop()


def reloaded(dev: Dev, times: int) -> bool:
    """The flows are named at the start, and when a changed file is served."""
    return dev.said().count("\nflows  ") == 1 + times


@pytest.mark.full_only
async def test_instances_go_on_with_changed_code_and_broken_code_changes_nothing(dev: Dev) -> None:
    directory, words = dev.directory, dev.directory / "words.py"
    async with Client(f"embedded://{directory}/.headrace") as client:
        waits, holds = await client.start("waits", "Ada", id="waits"), await client.start("holds", "Ada")
        await wait_until_async((directory / "holding").exists, 30, "the task to run")
        words.write_text("WORD = 'Hello\n")
        await wait_until_async(lambda: "stays as it is" in dev.said(), 30, "the broken file to be told")
        assert "words.py      changed, but cannot be loaded: " in dev.said()
        assert "SyntaxError: unterminated string literal" in dev.said()
        assert len(dev.pids("worker")) == 1

        words.write_text("WORD = 'Goodbye'\n")
        mended = "words.py      changed; the worker starts again with it"
        await wait_until_async(lambda: mended in dev.said(), 30, "the mended file to be told")
        (directory / "let-go").touch()  # the old worker ends what it has in hand
        await wait_until_async(lambda: reloaded(dev, 1), 60, "the mended file to be served")
        await waits.signal("go", "Bob")
        assert [await handle.result("30s") for handle in (waits, holds)] == ["Goodbye, Bob!", "Goodbye, Ada!"]
        with pytest.raises(ProcessLookupError):
            os.kill(dev.pids("worker")[0], 0)
    assert dev.stop() == 0


@pytest.mark.full_only
async def test_a_worker_that_refuses_changed_code_is_tried_again_when_it_changes(dev: Dev) -> None:
    words = dev.directory / "words.py"
    (dev.directory / "let-go").touch()
    async with Client(f"embedded://{dev.directory}/.headrace") as client:
        # A file that is broken when a new worker starts, after it was looked at: that worker is the one to refuse.
        words.write_text("import sys; WORD = 'Hi' if 'headrace.cli.sources' in sys.modules else 1 / 0\n")
        refused = "is tried again when the code changes"
        await wait_until_async(lambda: refused in dev.said(), 60, "the worker to refuse")
        words.write_text("WORD = 'Hi'\n")
        await wait_until_async(lambda: len(dev.pids("worker")) == 3 and reloaded(dev, 1), 60, "the mended file")
        assert await (await client.start("holds", "Eve")).result("30s") == "Hi, Eve!"
    assert dev.stop() == 0


@pytest.mark.full_only
def test_no_reload_leaves_the_worker_alone(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(APP.replace("from words import WORD", "WORD = 'Hello'"))
    dev = Dev(tmp_path, "flows.py", "--no-reload")
    try:
        wait_until(lambda: "Ctrl-C stops all" in dev.said(), 30, "dev to be up")
        (tmp_path / "flows.py").write_text("broken (")
        (tmp_path / "let-go").touch()
        # By the time an instance has run twice through, a look at the file would have told.
        for name in ("Ada", "Bob"):
            run = dev.run("start", "holds", "--input", f'"{name}"', "--wait")
            assert (run.returncode, run.stdout) == (0, f'"Hello, {name}!"\n'), run.stderr
        assert "changed" not in dev.said()
    finally:
        assert dev.stop() == 0
