"""The public surface is what `__all__` says."""

from __future__ import annotations

import subprocess
import sys

import headrace
import headrace.errors
import headrace_broker.errors

EXPECTED = """
    Client ConfigurationError Flow FlowError FlowNotFound GiveUp Handle HeadraceError InstanceBlocked
    InstanceCancelled InstanceExists InstanceFailed InstanceFinished InstanceNotBlocked InstanceNotEnded
    InstanceNotFound InvalidFlow InvalidInstanceId InvalidTask PayloadMismatch PayloadNotSerializable
    PayloadTooLarge Retention RetryAfter RetryPolicy ServerUnreachable Signal SignalTimeout Start StartAnswer
    SyncClient SyncHandle Task TaskContext TaskTimedOut UnknownRoute WorkerLost __version__ current_context task
"""


def test_the_public_names() -> None:
    assert sorted(headrace.__all__) == sorted(EXPECTED.split())
    for name in headrace.__all__:
        assert getattr(headrace, name) is not None


def test_errors_exports_the_whole_tree() -> None:
    tree = {
        name
        for name, value in vars(headrace_broker.errors).items()
        if isinstance(value, type) and issubclass(value, headrace_broker.errors.HeadraceError)
    }
    assert set(headrace.errors.__all__) == tree


def test_codes_are_unique() -> None:
    classes = [getattr(headrace.errors, name) for name in headrace.errors.__all__]
    codes = [each.code for each in (*classes, headrace.RetryAfter, headrace.GiveUp)]
    assert len(set(codes)) == len(codes)


def test_authors_modules_import_no_server() -> None:
    heavy = "redis pydantic pydantic_settings typer rich asyncio"
    names = "Flow, RetryPolicy, Signal, TaskContext, task"
    code = f"from headrace import {names}; import sys; print(*[m for m in {heavy!r}.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == []


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    code = "import headrace.cli, sys; print(*[name for name in sys.modules if name.startswith('headrace')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["headrace", "headrace.cli"]
    code = "import headrace; print(headrace.errors.HeadraceError.code, 'Flow' in dir(headrace), hasattr(headrace, 'x'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["headrace_error", "True", "False"]
