"""Tracebacks of failures, for whoever wrote the task: without Headrace's own frames."""

from __future__ import annotations

import asyncio
import selectors
import traceback
from pathlib import Path
from typing import Final

import headrace
import headrace_broker
from headrace_broker.errors import HeadraceError

TRACEBACK_LIMIT: Final = 8 * 1024
"""What a failure keeps of a traceback: its last bytes, with the error itself."""

_ROOT: Final = Path(headrace.__file__).parent
_OURS: Final = tuple(f"{path}/" for path in (_ROOT, Path(headrace_broker.__file__).parent, Path(__file__).parent))
_THEIRS: Final = f"{_ROOT / 'demo'}/"
"""The demo's flows are a user's code."""
_LOOP: Final = (f"{Path(asyncio.__file__).parent}/", selectors.__file__)
"""Between our frames and a coroutine of the task, in a process of its own."""


def format_traceback(error: BaseException) -> str:
    """The traceback of an error and of what it came from, at most `TRACEBACK_LIMIT` bytes."""
    try:
        summary = traceback.TracebackException.from_exception(error, lookup_lines=False)
        _trim(summary, keep_if_all_ours=not isinstance(error, HeadraceError))
        text = "".join(summary.format())
    except Exception:  # noqa: BLE001 an error whose __str__ raises
        return ""
    return text.encode("utf-8", "replace")[-TRACEBACK_LIMIT:].decode(errors="ignore")


def _trim(summary: traceback.TracebackException, *, keep_if_all_ours: bool = False) -> None:
    """Takes our frames out of an error, and of all that it came from or holds.

    `keep_if_all_ours`: such an error is no complaint but a fault of ours, and whoever mends it needs the frames.
    """
    todo: list[traceback.TracebackException | None] = [summary]
    while todo:
        one = todo.pop()
        if one is None:
            continue
        todo += [one.__cause__, one.__context__, *(one.exceptions or ())]
        frames = [frame for frame in one.stack if not _is_ours(frame.filename)]
        while frames and frames[0].filename.startswith(_LOOP):
            del frames[0]
        if frames or one is not summary or not keep_if_all_ours:
            one.stack = traceback.StackSummary.from_list(frames)


def _is_ours(filename: str) -> bool:
    return filename.startswith(_OURS) and not filename.startswith(_THEIRS)
