"""A worker in a process of its own, with its bridge and rq workers, and a look at RQ's keys."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace_broker.connection import call
from headrace_broker.messages import TaskMessage
from support.feeding import Feed
from support.waiting import wait_until

STREAM = "default:process"
PATIENCE = 30.0
"""Seconds; processes take long to start on a busy machine."""

_MAIN = """
import json, logging, sys
from headrace_workers.process import WorkerOptions, run
logging.basicConfig(level=logging.INFO)
try:
    sys.exit(run(WorkerOptions(**json.loads(sys.argv[1]))))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


class RqWorker:
    """A keeper whose tasks run in work-horses."""

    def __init__(self, options: dict[str, Any], log: Path, feed: Feed, prelude: str = "") -> None:
        self._log = log
        self._feed = feed
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", prelude + _MAIN, json.dumps(options)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def hand_out(self, task: str, argument: Any = None, **fields: Any) -> TaskMessage:
        return self._feed.hand_out(task, argument, stream=STREAM, **fields)

    def begin(self, path: Path, task: str = "block", **fields: Any) -> tuple[TaskMessage, int, int]:
        """Hands out a task that blocks until the file is gone; its message, horse and rq worker once it runs."""
        message = self.hand_out(task, str(path), **fields)
        wait_until(path.exists, PATIENCE, f"{task} to begin; the worker said:\n{self.said}")
        horse, rq_worker = (int(pid) for pid in path.read_text().split())
        return message, horse, rq_worker

    def family(self) -> set[int]:
        """The process ids of the keeper and all below it."""
        found = {self.process.pid}
        fresh = [self.process.pid]
        while fresh:
            pid = fresh.pop()
            for thread in Path(f"/proc/{pid}/task").glob("*/children"):
                children = {int(child) for child in thread.read_text().split()} - found
                found |= children
                fresh += children
        return found

    def bridge(self) -> int:
        for pid in self.family():
            if b"bridge_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise AssertionError("no bridge")

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ended(self, timeout: float = PATIENCE) -> int:
        return self.process.wait(timeout)


StartRq = Callable[..., RqWorker]


@pytest.fixture
def feed(server_url: str, namespace: str) -> Iterator[Feed]:
    made = Feed(server_url, namespace)
    yield made
    made.close()


@pytest.fixture
def start(server_url: str, namespace: str, feed: Feed, tmp_path: Path) -> Iterator[StartRq]:
    started: list[RqWorker] = []

    def go(prelude: str = "", **options: Any) -> RqWorker:
        chores = str(Path(__file__).with_name("chores.py"))
        chosen = {"targets": [chores], "url": server_url, "namespace": namespace, "lease_ms": 30_000} | options
        started.append(RqWorker(chosen, tmp_path / "worker.log", feed, prelude))
        return started[-1]

    yield go
    for worker in started:
        worker.process.kill()
        worker.process.wait()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def rq_keys(feed: Feed) -> list[str]:
    """What RQ keeps of this namespace's jobs. Not its lists of workers, nor of names of queues."""
    found: set[str] = set()
    for pattern in ("rq:*" + feed.namespace.keys.ns + "*", "rq:*-1ab-*"):
        found |= {key.decode() for key in call(feed.link, "KEYS", pattern)}
    lists = ("rq:workers:", "rq:clean_registries:", "rq:worker:")
    return sorted(key for key in found if not key.startswith(lists) and not _ends_by_itself(feed, key))


def _ends_by_itself(feed: Feed, key: str) -> bool:
    """RQ's maintenance notes, for a day, when it first saw a job half-way into a worker's hands."""
    return ":intermediate:first_seen:" in key and call(feed.link, "PTTL", key) > 0


def until_clean(feed: Feed) -> None:
    """Waits until the entries are settled and RQ keeps nothing of any job."""
    wait_until(lambda: feed.settled(STREAM), PATIENCE, "the entries to be settled")
    wait_until(lambda: not rq_keys(feed), PATIENCE, f"RQ's keys to go, such as {rq_keys(feed)}")
