"""Flows that say in which process they ran, grow, wait; the module can be told to die while it is loaded."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from headrace import Flow, task

if (poison := Path(os.environ.get("HEADRACE_TEST_POISON", "/nonexistent"))).exists():
    print(poison.read_text(), file=sys.stderr)
    os._exit(3)

_kept: list[bytearray] = []


def _begun(what: str) -> None:
    """Leaves a file, for the test to see."""
    Path(os.environ["HEADRACE_TEST_BEGUN"], what).touch()


@task
async def pid(value: int) -> int:
    del value
    return os.getpid()


@task
def grow(megabytes: int) -> int:
    """Keeps so much more memory, and touches all of it."""
    _kept.append(bytearray(b"x") * (megabytes * 1_000_000))
    return os.getpid()


@task
async def async_wait(seconds: float) -> str:
    _begun("async")
    await asyncio.sleep(seconds)
    return "waited"


@task
def thread_wait(seconds: float) -> str:
    _begun("thread")
    time.sleep(seconds)
    return "waited"


@task(isolation="process")
def process_wait(seconds: float) -> str:
    _begun("process")
    time.sleep(seconds)
    return "waited"


@task
def gather(a: str, t: str, p: str) -> list[str]:
    return [a, t, p]


pids = Flow("pids", input=int).then(pid)
growing = Flow("growing", input=int).then(grow)
waiting = (
    Flow("waiting", input=float)
    .fork()
    .branch("a", async_wait)
    .branch("t", thread_wait)
    .branch("p", process_wait)
    .join(gather)
)
