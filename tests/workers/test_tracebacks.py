"""What an author sees of a failure: her own code, and nothing of ours around it."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn, cast

import pytest

from headrace import current_context
from headrace_broker import codec
from headrace_broker.errors import PayloadMismatch
from headrace_workers import attempt, tracebacks
from headrace_workers.attempt import failure_of
from headrace_workers.executors import Threads


def fails() -> NoReturn:
    raise ValueError("mine")


def chained() -> None:
    try:
        current_context()
    except Exception as error:
        raise ValueError("mine") from error


def caught(what: BaseException) -> list[str]:
    """The functions of the frames that are shown, of all errors in the chain."""
    text = failure_of(what).traceback
    assert "headrace_workers/" not in text
    return [line.rpartition(" in ")[2] for line in text.splitlines() if line.startswith('  File "')]


def below(error: BaseException) -> BaseException:
    """Without the test's own frame, which workers do not have."""
    assert error.__traceback__ is not None
    return error.with_traceback(error.__traceback__.tb_next)


async def test_a_thread_and_the_loop_leave_no_frames() -> None:
    threads = Threads(1)
    with pytest.raises(ValueError, match="mine") as raised:
        await threads.submit(fails)
    threads.close()
    assert caught(raised.value)[-1:] == ["fails"]
    assert "_run" not in caught(raised.value)


def test_what_runs_a_coroutine_in_a_process_leaves_no_frames() -> None:
    async def body() -> None:
        fails()

    with asyncio.Runner() as runner, pytest.raises(ValueError, match="mine") as raised:
        runner.run(body())
    assert caught(below(raised.value)) == ["body", "fails"]


def test_frames_of_ours_are_taken_out_of_the_whole_chain() -> None:
    with pytest.raises(ValueError, match="mine") as raised:
        chained()
    assert caught(raised.value) == ["chained", "test_frames_of_ours_are_taken_out_of_the_whole_chain", "chained"]
    assert "direct cause" in failure_of(raised.value).traceback


def test_a_complaint_of_ours_needs_no_frames_but_a_fault_does() -> None:
    with pytest.raises(PayloadMismatch) as complaint:
        codec.decode(b"\xc1")
    assert "codec.py" not in failure_of(below(complaint.value)).traceback
    assert "PayloadMismatch" in failure_of(below(complaint.value)).traceback
    with pytest.raises(AttributeError) as fault:
        attempt.failure_of(ValueError(), cast(Any, 1))
    assert "in failure_of" in failure_of(below(fault.value)).traceback


def test_a_traceback_is_cut_at_its_beginning_and_never_fails() -> None:
    class Awkward(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert "Awkward" in tracebacks.format_traceback(Awkward())
    text = tracebacks.format_traceback(ValueError("x" * 20_000 + "end"))
    assert len(text.encode()) <= tracebacks.TRACEBACK_LIMIT
    assert text.endswith("end\n")
    group = ExceptionGroup("several", [ValueError("one"), KeyError("two")])
    assert "KeyError: 'two'" in tracebacks.format_traceback(group)
