"""A target: tasks with `isolation="process"` that do what the tests of RQ need."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Literal

from headrace import TaskContext, task


@task(isolation="process")
def double(number: int) -> int:
    return 2 * number


@task(isolation="process")
def process_ids() -> tuple[int, int]:
    return os.getpid(), os.getppid()


@task(isolation="process")
async def later(number: int, ctx: TaskContext) -> str:
    await asyncio.sleep(0)
    return f"{ctx.instance_id} {number}"


@task(isolation="process")
def choose(number: int) -> Literal["even", "odd"]:
    return "odd" if number % 2 else "even"


@task(isolation="process")
def blow(size: int) -> bytes:
    return b"x" * size


@task(isolation="process")
def fail(text: str) -> None:
    raise ValueError(text)


@task(isolation="process")
def leave() -> None:
    raise SystemExit(3)


@task(isolation="process")
def block(path: str) -> None:
    """Notes its process ids in a file, and stays until that file is gone."""
    note(path)
    while Path(path).exists():
        time.sleep(0.01)


@task(isolation="process")
def block_stubbornly(path: str) -> None:
    """Cannot be stopped by an exception."""
    note(path)
    while Path(path).exists():
        try:
            time.sleep(0.01)
        except BaseException:  # noqa: BLE001
            continue


@task(isolation="process")
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(isolation="process")
def spawn(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@task
def plain(number: int) -> int:
    return number + 1


def note(path: str) -> None:
    whole = Path(f"{path}.new")
    whole.write_text(f"{os.getpid()} {os.getppid()}")
    whole.rename(path)
