"""Processes as the system knows them (Linux)."""

from __future__ import annotations

from pathlib import Path


def children(pid: int) -> frozenset[int]:
    """The ids of a process's children."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return frozenset(int(child) for task in tasks for child in (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        return frozenset()
