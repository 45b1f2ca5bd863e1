"""`headrace demo`: durable flows over this Python's standard library, while processes are killed.

modules    plain functions: what is done to one module
flow       the same functions as tasks and two flows: what the worker runs
ledger, reporting   what the flows write: SQLite rows, and the report
plain      the run in one process that the result is compared with
place      the directory of the demo
run        the whole, in order; with processes, killing, histories, checks
"""

from __future__ import annotations

from pathlib import Path


def run(directory: Path, yes: bool, limit: int | None = None) -> int:
    """Runs the demo; the exit code. `yes`: the approval is sent at once. `limit`: at most so many modules."""
    from .run import run

    return run(directory, yes, limit)
