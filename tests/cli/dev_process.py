"""A real `headrace dev`, and the commands that somebody types beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path


class Dev:
    """`headrace dev` in a directory, without our environment's settings."""

    def __init__(self, directory: Path, *targets: str, **environment: str) -> None:
        self.directory = directory
        self.log = directory / "dev.log"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        self._environment |= environment
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headrace.cli", "dev", *targets],
                cwd=directory,
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    def said(self) -> str:
        return self.log.read_text()

    def pids(self, name: str) -> list[int]:
        return [int(pid) for pid in re.findall(rf"^{name} +runs, pid (\d+)", self.said(), re.MULTILINE)]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "headrace.cli", *arguments],
            cwd=self.directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def stop(self) -> int:
        """By Ctrl-C, if it runs; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)
