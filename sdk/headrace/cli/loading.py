"""Loads targets in a process of its own, and tells what that brought: `python -m headrace.cli.loading TARGET…`.

A module cannot be imported a second time where it was imported before, and code that does not end, or ends the process,
must not do so to whoever asks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headrace_broker.errors import TargetError

from . import sources, tethered

DEADLINE_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.05

FRESH: Final[Mapping[str, str]] = {"PYTHONDONTWRITEBYTECODE": "1"}
"""For processes that run files which change: two writes of one size in one second look alike to Python's cache."""


@dataclass(frozen=True)
class Loaded:
    """What targets are made of now: the author's files, and the names. `error` says why they cannot be loaded."""

    files: frozenset[Path]
    flows: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    error: str | None = None


def load_apart(targets: Sequence[str], stopped: threading.Event, deadline: float = DEADLINE_SECONDS) -> Loaded | None:
    """Loads targets in another process; None if stopped meanwhile."""
    command = [sys.executable, "-m", "headrace.cli.loading", *targets]
    with subprocess.Popen(
        [sys.executable, "-I", "-S", tethered.__file__, str(os.getpid()), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the worker will say it as well
        env={**os.environ, **FRESH},
        process_group=0,
    ) as process:
        try:
            said = _hear(process, stopped, deadline)
        except TimeoutError:
            return Loaded(frozenset(), error=f"importing it did not end within {deadline:g} s")
        finally:
            process.kill()
    if said is None:
        return None
    try:
        found = json.loads(said)
    except ValueError:
        return Loaded(frozenset(), error=f"importing it ended the process, with exit code {process.returncode}")
    return Loaded(frozenset(map(Path, found["files"])), tuple(found["flows"]), tuple(found["tasks"]), found["error"])


def _hear(process: subprocess.Popen[bytes], stopped: threading.Event, deadline: float) -> bytes | None:
    """All that it says; None if stopped. Raises `TimeoutError`."""
    due = time.monotonic() + deadline
    while not stopped.is_set():
        try:
            return process.communicate(timeout=_LOOK_SECONDS)[0]
        except subprocess.TimeoutExpired:
            if time.monotonic() >= due:
                raise TimeoutError from None
    return None


def load_here(targets: Sequence[str]) -> dict[str, Any]:
    """A `Loaded` as plain values."""
    from headrace.targets import load_targets

    below = sources.roots(targets)
    flows: list[str] = []
    tasks: list[str] = []
    blamed: frozenset[Path] = frozenset()
    problem: str | None = None
    try:
        registry = load_targets(targets)
        flows, tasks = sorted(registry.flows), sorted(registry.tasks)
    except TargetError as error:
        problem, blamed = str(error), sources.blamed(error, below)
    files = sources.imported(below) | sources.target_files(targets) | blamed
    return {"files": sorted(map(str, files)), "flows": flows, "tasks": tasks, "error": problem}


def main(targets: Sequence[str]) -> None:
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what is imported may print
    json.dump(load_here(targets), answer)
    answer.flush()
    os._exit(0)  # threads that an import has started do not matter


if __name__ == "__main__":
    main(sys.argv[1:])
