"""The table of commands: it says what the modules say, and help needs no more than the table."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer

import headrace.cli
from headrace.cli import commands
from headrace.cli.app import app
from support.cpu import cpu_seconds

from .conftest import Headrace

HEAVY = ("rich.console", "pydantic", "asyncio", "redis", "msgpack", "prometheus_client", "headrace_broker.keys")
MODULES = frozenset(f"headrace.cli.{entry.module}" for entry in commands.TABLE.values())
WHAT_IS_LOADED = "import sys\ntry:\n    {0}\nfinally:\n    print(*sys.modules, file=sys.stderr)\n"
MAIN = "from headrace.cli import main; main()"


@pytest.mark.parametrize("name", commands.TABLE)
def test_a_command_is_what_the_table_says(name: str) -> None:
    command = commands.load(name)
    assert command.name == name
    assert command.get_short_help_str(1000) == commands.TABLE[name].summary


def test_the_table_has_every_command_of_every_module() -> None:
    added: set[tuple[str, str]] = set()
    for _, module, _ in pkgutil.iter_modules(headrace.cli.__path__):
        if module == "__main__" or not hasattr(found := import_module(f"headrace.cli.{module}"), "add_to"):
            continue
        part = typer.Typer()
        part.callback()(lambda: None)
        found.add_to(part)
        added |= {(name, module) for name in typer.main.get_group(part).commands}
    assert added == {(name, entry.module) for name, entry in commands.TABLE.items()}


def test_who_looks_into_the_application_sees_the_commands_themselves() -> None:
    group = typer.main.get_group(app)
    assert list(group.commands) == list(commands.TABLE)
    assert "start" in group.commands
    assert "strat" not in group.commands
    assert {parameter.name for parameter in group.commands["start"].params} >= {"flow", "input"}
    with pytest.raises(KeyError):
        group.commands["strat"]


@pytest.mark.parametrize(("typed", "meant"), [("wroker", "worker"), ("orchestrater", "orchestrator"), ("sow", "show")])
def test_an_unknown_command_names_the_nearest(headrace: Headrace, typed: str, meant: str) -> None:
    outcome = headrace(typed, "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: No such command '{typed}'. Did you mean ")
    assert f"'{meant}'" in outcome.err


def test_help_loads_no_command_and_nothing_heavy() -> None:
    loaded = _loaded_by("sys.argv[1:] = ['--help']; " + MAIN)
    assert "headrace.cli.commands" in loaded
    assert sorted(loaded & {*HEAVY, *MODULES}) == []


def test_completion_of_names_loads_no_command() -> None:
    asked = {"_HEADRACE_COMPLETE": "complete_bash", "COMP_WORDS": "headrace s", "COMP_CWORD": "1"}
    loaded = _loaded_by(MAIN, **asked)
    assert sorted(loaded & {"asyncio", "redis", *MODULES}) == []  # typer brings pydantic itself


@pytest.mark.parametrize(("line", "expected"), [("headrace sh", ["show"]), ("headrace show --js", ["--json"])])
def test_commands_and_their_options_are_completed(line: str, expected: list[str], tmp_path: Path) -> None:
    asked = {"_HEADRACE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", MAIN],
        env={**os.environ, **asked},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (done.stdout.split(), done.stderr) == (expected, "")


def test_a_command_loads_only_itself() -> None:
    loaded = _loaded_by("sys.argv[1:] = ['cancel', '--help']; " + MAIN)
    assert sorted(loaded & {"redis", *MODULES}) == ["headrace.cli.instances"]


def test_import_takes_at_most_150_ms_and_help_300_ms() -> None:
    """Of one core's time, and the best of several: other tests run beside this one."""
    assert cpu_seconds([sys.executable, "-c", "import headrace"], enough=0.15) <= 0.15
    assert cpu_seconds([sys.executable, "-m", "headrace.cli", "--help"], enough=0.3) <= 0.3


def _loaded_by(statement: str, **environment: str) -> set[str]:
    """The names of all modules that are loaded when the statement has ended."""
    code = WHAT_IS_LOADED.format(statement)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, bool(done.stdout)) == (0, True), done.stderr
    return set(done.stderr.split())
