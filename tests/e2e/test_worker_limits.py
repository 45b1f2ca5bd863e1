"""Children that are replaced, and children that cannot live: real processes, told by the command line."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from headrace import Client
from support.waiting import wait_until_async

from .deployment import Deployment
from .worker_app import growing, pids

APP = str(Path(__file__).with_name("worker_app.py"))

pytestmark = [pytest.mark.servers("redis"), pytest.mark.timeout(120)]


@pytest.mark.full_only
async def test_no_child_runs_more_tasks_than_it_may_and_none_is_lost(
    server_url: str, namespace: str, tmp_path: Path
) -> None:
    options = ["--max-tasks-per-child", "20", "--concurrency", "4", "--processes", "2", "--rq", "0"]
    with Deployment(server_url, namespace, tmp_path, [APP, *options]):
        async with Client(server_url, namespace) as client:
            handles = [await client.start(pids, number) for number in range(100)]
            ran = Counter(await asyncio.gather(*(handle.result(timeout=60) for handle in handles)))
    assert max(ran.values()) <= 20
    assert sum(ran.values()) == 100
    log = (tmp_path / "worker.log").read_text()
    assert "is replaced: it has begun 18 of 20 tasks." in log
    assert "died" not in log


@pytest.mark.full_only
async def test_a_child_that_grows_too_big_is_replaced(server_url: str, namespace: str, tmp_path: Path) -> None:
    environment = {"HEADRACE_MAX_MEMORY": "200MB", "HEADRACE_RQ": "0"}
    with Deployment(server_url, namespace, tmp_path, [APP], environment) as deployment:
        async with Client(server_url, namespace) as client:
            first = await (await client.start(growing, 10)).result(timeout=30)
            assert await (await client.start(growing, 250)).result(timeout=30) == first
            await wait_until_async(lambda: first not in deployment.children_of_worker(), 20, "the big one is gone")
            assert await (await client.start(growing, 10)).result(timeout=30) != first
    log = (tmp_path / "worker.log").read_text()
    assert "of memory after 2 tasks, and 200.0MB is too much." in log
    assert "died" not in log


@pytest.mark.full_only
async def test_a_worker_whose_children_die_at_once_says_so_and_recovers(
    server_url: str, namespace: str, tmp_path: Path
) -> None:
    poison = tmp_path / "poison"
    environment = {"HEADRACE_TEST_POISON": str(poison), "HEADRACE_RQ": "0"}
    log = tmp_path / "worker.log"
    with Deployment(server_url, namespace, tmp_path, [APP], environment) as deployment:
        async with Client(server_url, namespace) as client:
            await (await client.start(pids, 1)).result(timeout=30)
            keeper = deployment.supervisor.pid("worker")
            poison.write_text("no database here")
            deployment.kill("child")
            await wait_until_async(lambda: "That makes 4 in a row" in log.read_text(), 30, "four deaths")
            poison.unlink()
            waiting = await client.start(pids, 2)
            assert await waiting.result(timeout=30)
            assert deployment.supervisor.pid("worker") == keeper
    said = log.read_text()
    assert "died: exit code 3.\nIts last lines:\n  no database here" in said
    assert said.count("Its last lines") == 1
    assert said.count("no database here") - 1 == said.count("died: exit code 3"), "what it wrote is passed on as well"


@pytest.mark.parametrize(
    ("options", "poison", "words"),
    [
        (["--max-memory", "20MB"], "", "--max-memory 20.0MB is not enough"),
        pytest.param(
            [],
            "no database here",
            "exit code 3 while it loaded the targets.\nIts last lines:\n  no database here",
            marks=pytest.mark.full_only,
        ),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    server_url: str, namespace: str, tmp_path: Path, options: list[str], poison: str, words: str
) -> None:
    if poison:
        (tmp_path / "poison").write_text(poison)
    ended = subprocess.run(
        [sys.executable, "-m", "headrace.cli", "worker", APP, "--rq", "0", *options],
        env={
            **os.environ,
            "HEADRACE_URL": server_url,
            "HEADRACE_NAMESPACE": namespace,
            "HEADRACE_TEST_POISON": str(tmp_path / "poison"),
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
