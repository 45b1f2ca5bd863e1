"""What processes leave behind: other processes, temporary files, sockets. For tests that stop what they started."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from support.waiting import wait_until

_MARK: Final = "HEADRACE_TEST_MARK"


class Traces:
    """Give `environment` to a process: all that it starts inherits the mark, and its temporary files lie apart.

    Linux only, and not for processes that clear their environment.
    """

    def __init__(self) -> None:
        self._mark = secrets.token_hex(8)
        # Short, for a socket's path has at most 107 bytes, and else would go elsewhere.
        self._directory = Path(tempfile.mkdtemp(prefix="hr-", dir="/tmp"))

    @property
    def environment(self) -> Mapping[str, str]:
        return {_MARK: self._mark, "TMPDIR": str(self._directory)}

    def processes(self) -> list[str]:
        """`pid command line` of each that lives."""
        wanted = f"{_MARK}={self._mark}".encode()
        found: list[str] = []
        for place in Path("/proc").iterdir():
            if not place.name.isdigit():
                continue
            try:
                if wanted in (place / "environ").read_bytes().split(b"\0"):
                    found.append(f"{place.name} {(place / 'cmdline').read_bytes().replace(bytes(1), b' ').decode()}")
            except OSError:  # it is gone, or another user's
                continue
        return found

    def files(self) -> list[str]:
        return [str(path) for path in self._directory.rglob("*") if not _is_probe(path)]

    def sockets(self) -> list[str]:
        """Unix sockets that somebody holds open."""
        lines = Path("/proc/net/unix").read_text().splitlines()
        return [line.split()[-1] for line in lines if str(self._directory) in line]

    def left(self) -> list[str]:
        """All that is there now."""
        return [*self.processes(), *self.files(), *self.sockets()]

    def assert_none(self, timeout: float = 2.0) -> None:
        """Nothing is left, `timeout` seconds from now at the latest: a killed process takes a moment to go."""
        wait_until(lambda: not self.left(), timeout, f"nothing to be left; at first there was {self.left()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for line in self.processes():
            os.kill(int(line.split()[0]), 9)
        shutil.rmtree(self._directory, ignore_errors=True)


def _is_probe(path: Path) -> bool:
    """Python itself tries a temporary directory out by such a file, and leaves it if it is killed just then."""
    try:
        return re.fullmatch("[a-z0-9_]{8}", path.name) is not None and path.read_bytes() in (b"", b"blat")
    except OSError:  # a directory, a socket, or gone
        return False
