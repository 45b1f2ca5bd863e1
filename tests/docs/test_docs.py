"""The docs say what is so: programs build, commands parse, tables are complete, links lead on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard
from uuid import uuid4

import pytest
import typer
from prometheus_client import CollectorRegistry

import headrace.errors
from headrace import Flow
from headrace.cli.app import app
from headrace_broker.errors import remedy
from headrace_broker.settings import Settings
from headrace_orchestrator.metrics import Metrics
from reference_pages import pages

from .pages import PAGES, ROOT, CommandLine, anchors, blocks, commands, links, name_of, not_run

CONFIGURATION = ROOT / "docs/reference/configuration.md"
ERRORS = ROOT / "docs/reference/errors.md"
CLI = ROOT / "docs/reference/cli.md"
METRICS = ROOT / "docs/reference/metrics.md"
LANGUAGES = {"python", "console", "text"}
"""Programs are run and commands checked, all of them; `text` is what neither is: output, queries of other programs."""
WITH_PROGRAMS = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]
WITH_COMMANDS = [page for page in PAGES if any(commands(page))]


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """A module that a page's programs run in, one after the other."""
    made = types.ModuleType(f"docs_page_{uuid4().hex}")
    sys.modules[made.__name__] = made  # pydantic and annotations look names up there
    yield made
    del sys.modules[made.__name__]


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=name_of)
def test_programs_run_and_their_flows_build(page: Path, module: types.ModuleType) -> None:
    for block in blocks(page):
        if block.language == "python" and block.line not in not_run(page):
            padded = "\n" * (block.line - 1) + block.text  # so that a traceback names the page's line
            exec(compile(padded, str(page), "exec", dont_inherit=True), module.__dict__)
    built = [value for value in vars(module).values() if _is_flow(value) and value.scope.steps]
    for flow in built:
        assert flow.definition.nodes
        for task in flow.tasks.values():
            task.check()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{name_of(page)}:{block.line} is {block.language or 'indented'}"
        looks = re.search(r"^(\$ |headrace |pip |from \w+ import )", block.text, re.MULTILINE)
        assert block.language != "text" or not looks, f"{name_of(page)}:{block.line} is text, and looks like a program"


def test_what_is_not_run_is_the_next_block() -> None:
    for page in PAGES:
        assert set(not_run(page)) <= {block.line for block in blocks(page)}, name_of(page)


def test_the_guides_first_flow_is_the_readmes_and_the_example() -> None:
    readme, guide = (
        next(block.text for block in blocks(page) if block.language == "python")
        for page in (ROOT / "README.md", ROOT / "docs/guide.md")
    )
    example = (ROOT / "examples/orders.py").read_text("utf-8")
    chains = [re.findall(r"^orders = \(.*?^\)", text, re.DOTALL | re.MULTILINE) for text in (readme, guide, example)]
    assert chains[0]
    assert chains[0] == chains[1] == chains[2]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_command_lines_name_what_exists(page: Path) -> None:
    for line in commands(page):
        try:
            _check(line)
        except Exception as error:
            typed = " ".join(("headrace", *line.arguments))
            raise AssertionError(f"{name_of(page)}:{line.line}: {typed}: {error}") from error


def test_every_command_and_option_is_in_the_reference() -> None:
    sections = re.split(r"^## ", CLI.read_text("utf-8"), flags=re.MULTILINE)
    for name, command in _commands().items():
        section = next((text for text in sections if re.match(rf"`headrace {name}[` ]", text)), None)
        assert section is not None, f"cli.md has no section on `headrace {name}`"
        for option in _options(command) - {"-h", "--help"}:
            missing = f"`{option}`" not in section and not (name == "demo" and option in ("--url", "--namespace"))
            assert not missing, f"cli.md does not name {option} of `headrace {name}`"
        for option in re.findall(r"^\| ((?:`--?[\w-]+`,? ?)+)", section, re.MULTILINE):
            for one in re.findall(r"`(.+?)`", option):
                assert one in _options(command), f"cli.md names {one}, which `headrace {name}` does not have"


def test_every_finding_of_doctor_is_in_the_reference() -> None:
    page = CLI.read_text("utf-8")
    table = page[page.index("| code | severity |") : page.index("## `headrace unblock")]
    documented = {
        code for cell in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for code in re.findall(r"\w+", cell)
    }
    sources = [(ROOT / "sdk/headrace/cli" / name).read_text("utf-8") for name in ("checks.py", "doctor.py")]
    found = {code for text in sources for code in re.findall(r'Finding\(\s*"(\w+)"', text)}
    lags = set(re.findall(r'"(\w+_lag)"', sources[0]))
    assert documented == found | lags


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_the_generated_reference_is_up_to_date(page: Path) -> None:
    assert page.read_text("utf-8") == pages()[page], f"{name_of(page)} is not what the code says. Type: make docs"


def test_every_setting_is_in_the_reference() -> None:
    documented = re.findall(r"^\| `(HEADRACE_\w+)`", CONFIGURATION.read_text("utf-8"), re.MULTILINE)
    assert documented == [f"HEADRACE_{name.upper()}" for name in Settings.model_fields]


def test_every_error_is_in_the_reference_with_what_to_do() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \| `\w+` \|", ERRORS.read_text("utf-8"), re.MULTILINE))
    assert documented == {*headrace.errors.__all__, "RetryAfter", "GiveUp"} - {"HeadraceError"}
    assert all(remedy(getattr(headrace.errors, name)) for name in headrace.errors.__all__)


def test_every_metric_is_in_the_reference() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    names = {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}
    documented = set(re.findall(r"^\| `(headrace_\w+)`", METRICS.read_text("utf-8"), re.MULTILINE))
    assert documented == names


def test_the_source_distribution_has_all_that_is_here() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["sdist"]
    included = set(listed["only-include"])
    assert all((ROOT / name).exists() for name in included)
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    here = {line.partition("/")[0] for line in tracked.stdout.splitlines()}
    assert {name for name in here if not name.startswith(".")} - {"pyproject.toml"} == included


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, title = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)} points to {link}"
        if title:
            assert title in anchors(target), f"{name_of(page)} points to {link}; {name_of(target)} has no such title"


def _is_flow(value: object) -> TypeGuard[Flow[Any, Any]]:
    return isinstance(value, Flow)


@cache
def _group() -> Any:
    """What typer makes of the command line."""
    return typer.main.get_command(app)


def _commands() -> dict[str, Any]:
    return dict(_group().commands)


def _options(command: Any) -> set[str]:
    """Those of a command, or of all commands in a group."""
    within = getattr(command, "commands", {}).values()
    own = {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    }
    return own.union({"-h", "--help"}, *map(_options, within))


def _check(line: CommandLine) -> None:
    """Raises for a command or an option that does not exist. A whole line is parsed as the command line does it."""
    group = _group()
    if not line.arguments or line.arguments[0].startswith("-"):
        assert set(line.arguments) <= _options(group) | {"--version"}
        return
    name, *rest = line.arguments
    command = group.commands[name]
    if hasattr(command, "commands") and rest:
        name, *rest = rest
        command = command.commands[name]
    if line.whole:
        command.make_context(name, rest)
    else:
        unknown = {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"} - _options(command)
        assert not unknown, f"no such option: {', '.join(sorted(unknown))}"
