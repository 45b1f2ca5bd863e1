"""A node kind is one file and one table entry; the engine does no I/O; a definition it cannot run is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

import pytest

import headrace_orchestrator.engine as engine_package
from headrace_broker.definitions import Definition, Node, TaskCall
from headrace_broker.errors import MessageError
from headrace_orchestrator.engine.nodes import KINDS
from headrace_orchestrator.engine.program import Program

ENGINE = Path(engine_package.__path__[0])
CALL = TaskCall("t").to_wire()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_file_and_a_test_file(kind: str) -> None:
    assert (ENGINE / "nodes" / f"{kind}.py").is_file()
    assert (Path(__file__).parent / f"test_{kind}.py").is_file()


def test_each_file_has_a_kind() -> None:
    assert {path.stem for path in (ENGINE / "nodes").glob("*.py")} - {"__init__"} == set(KINDS)


def test_no_other_file_of_the_engine_names_a_kind() -> None:
    for path in ENGINE.glob("*.py"):
        text = path.read_text()
        for kind in KINDS:
            assert f"nodes.{kind}" not in text, f"{path.name} knows {kind}"


def test_the_engine_pulls_in_nothing_that_does_io() -> None:
    modules = [
        ".".join(("headrace_orchestrator", "engine", *path.relative_to(ENGINE).with_suffix("").parts))
        for path in sorted(ENGINE.rglob("*.py"))
    ]
    code = f"""
import sys, importlib
sys.path[:] = {sys.path!r}
before = set(sys.modules)
for name in {modules!r}:
    importlib.import_module(name)
print(*sorted(set(sys.modules) - before))
"""
    answer = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=30, check=True)
    loaded = set(answer.stdout.split())
    assert loaded >= set(modules) - {"headrace_orchestrator.engine.__init__"}
    assert not loaded & {"redis", "asyncio", "time", "random", "logging", "threading", "socket"}


def load(kind: str, params: Mapping[str, Any]) -> Program:
    return Program.load(Definition("f", (Node(kind, "n", None, params),)), KINDS)


def test_a_kind_from_a_newer_release_is_refused_by_name() -> None:
    with pytest.raises(MessageError, match=r"Node 'n' of flow 'f' is of kind 'loop'.*delay, fork, route, signal, task"):
        load("loop", {})


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        *(("task", {}), ("task", {"call": 7}), ("task", {"call": [1, 2, 3]})),
        *(("delay", {}), ("delay", {"ms": None}), ("delay", {"ms": "soon"}), ("delay", {"ms": inf})),
        *(("signal", {}), ("signal", {"signal": "n", "timeout_ms": []})),
        *(
            ("fork", {}),
            ("fork", {"shape": "list", "branches": [["a", 0]]}),
            ("fork", {"shape": "args", "branches": []}),
        ),
        *(("fork", {"shape": "args", "branches": 7}), ("fork", {"shape": "args", "branches": [[1]]})),
        *(("route", {}), ("route", {"call": CALL}), ("route", {"call": CALL, "branches": [["a", 0]]})),
        ("route", {"call": CALL, "branches": {"a": None}}),
    ],
)
def test_parameters_that_are_none_of_the_kinds_are_refused(kind: str, params: Mapping[str, Any]) -> None:
    with pytest.raises(MessageError):
        load(kind, params)
