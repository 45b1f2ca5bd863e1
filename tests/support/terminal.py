"""A person at a shell: commands are typed one after the other, into terminals of which one may be busy."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from .processes import children
from .waiting import wait_until


class Terminal:
    """A bash with job control and its screen. It types only when the command before has come back."""

    def __init__(self, directory: Path, environment: Mapping[str, str], screen: Path) -> None:
        self._screen = screen
        self._mark = uuid4().hex
        self._begun = 0
        self._jobs: frozenset[int] = frozenset()
        with screen.open("wb") as output:
            self._shell = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                cwd=directory,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.enter("set -m")
        wait_until(lambda: self.code is not None, 10, "a shell")

    def enter(self, command: str) -> None:
        """Begins a command line; it reads nothing. What it shows is `said`."""
        assert self._shell.stdin is not None
        self._begun = len(self._text())
        self._jobs = children(self._shell.pid)
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null; printf '\\n%s %d\\n' {self._mark} $?\n".encode())
        self._shell.stdin.flush()

    def press_ctrl_c(self) -> None:
        """For what runs in the foreground, as a terminal does it. What it shows from now on is `said`."""
        self._begun = len(self._text())
        for group in children(self._shell.pid) - self._jobs:
            os.killpg(group, signal.SIGINT)

    @property
    def said(self) -> str:
        """What the command has shown so far, without the shell's own words about jobs."""
        shown, _, _ = self._text()[self._begun :].partition(f"\n{self._mark} ")
        return re.sub(r"^bash: line \d+: .*\n?", "", shown, flags=re.MULTILINE)

    @property
    def code(self) -> int | None:
        """The command's exit code; None while it runs."""
        found = re.search(rf"^{self._mark} (\d+)$", self._text()[self._begun :], re.MULTILINE)
        return None if found is None else int(found[1])

    def leave(self) -> None:
        """Closes the shell as a person does: what still runs, runs on."""
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait(10)

    def close(self) -> None:
        """Ends the shell, and all that it has started and that still runs."""
        for group in children(self._shell.pid):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._shell.kill()
        self._shell.wait()
        if self._shell.stdin is not None:
            self._shell.stdin.close()

    def _text(self) -> str:
        return self._screen.read_text("utf-8", "replace")


class Person:
    """Types into the terminal used last; into another one, as the docs say, while that is busy."""

    def __init__(self, directory: Path, environment: Mapping[str, str], screens: Path) -> None:
        self._directory = directory
        self._environment = environment
        self._screens = screens
        self._terminals: list[Terminal] = []
        self._at: Terminal | None = None

    def enter(self, command: str) -> Terminal:
        """The terminal in which it was typed."""
        if self._at is None or self._at.code is None:
            self._at = next((each for each in self._terminals if each.code is not None), None) or self._open()
        self._at.enter(command)
        return self._at

    def press_ctrl_c(self) -> Terminal:
        """In the one terminal that is busy, where typing then goes on."""
        (self._at,) = [each for each in self._terminals if each.code is None]
        self._at.press_ctrl_c()
        return self._at

    def press_ctrl_c_everywhere(self) -> None:
        """Ends what is still in the foreground."""
        for each in self._terminals:
            if each.code is None:
                each.press_ctrl_c()
        wait_until(lambda: all(each.code is not None for each in self._terminals), 20, "the end of what ran")

    def leave(self) -> None:
        """Closes all terminals; what still runs, runs on."""
        for each in self._terminals:
            each.leave()

    def _open(self) -> Terminal:
        screen = self._screens / f"terminal-{len(self._terminals)}.log"
        self._terminals.append(Terminal(self._directory, self._environment, screen))
        return self._terminals[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._terminals:
            each.close()
