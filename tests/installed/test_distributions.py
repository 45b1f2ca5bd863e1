"""What is in the wheel and in the source distribution, and that either can be installed."""

from __future__ import annotations

import re
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path
from typing import get_args

import pytest

from headrace_broker.extras import Extra

from .conftest import ROOT, Built, Environment

pytestmark = pytest.mark.xdist_group("installed")

PACKAGES = {
    "headrace": "sdk",
    "headrace_broker": "broker",
    "headrace_orchestrator": "orchestrator",
    "headrace_workers": "workers",
}


def test_the_wheel_has_all_of_the_four_packages_and_nothing_else(built: Built) -> None:
    expected = {
        path.relative_to(ROOT / home).as_posix()
        for package, home in PACKAGES.items()
        for path in (ROOT / home / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {f"{package}/py.typed" for package in PACKAGES} < expected
    assert "headrace_broker/scripts/start.lua" in expected
    inside = {name for name in _names(built.wheel) if ".dist-info/" not in name}
    assert inside == expected


def test_the_wheels_metadata_names_the_command_the_extras_and_the_licence(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        home = next(name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
        metadata = Parser().parsestr(wheel.read(f"{home}/METADATA").decode())
        entry_points = wheel.read(f"{home}/entry_points.txt").decode()
        assert f"{home}/licenses/LICENSE" in wheel.namelist()
    assert "headrace = headrace.cli:main" in entry_points
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert set(metadata.get_all("Provides-Extra") or ()) == {*get_args(Extra), "test", "dev"}


def test_the_readme_and_the_guide_name_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for page in ("README.md", "docs/guide.md"):
        named = set(re.findall(r"^\| `(\w+)` \|", (ROOT / page).read_text("utf-8"), re.MULTILINE))
        assert {*extras} - {"test", "dev"} <= named, page


@pytest.mark.full_only
def test_the_source_distribution_makes_the_same_wheel(
    built: Built, build_from: Callable[[Path, Path], Built], tmp_path: Path
) -> None:
    with tarfile.open(built.sdist) as sdist:
        sdist.extractall(tmp_path / "source")  # our own; Debian's 3.11.2 knows no filter
    (source,) = (tmp_path / "source").iterdir()
    assert {"tests", "docs", "examples", "Makefile", "pyproject.toml"} <= {path.name for path in source.iterdir()}
    again = build_from(source, tmp_path / "again")
    assert again.wheel.name == built.wheel.name
    assert _contents(again.wheel) == _contents(built.wheel)


def test_an_installed_wheel_runs(installed: Environment, tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert installed.run("headrace", "--version", cwd=tmp_path) == f"headrace {version}\n"
    assert "  worker " in installed.run("headrace", "--help", cwd=tmp_path)
    places = "import headrace, headrace_broker as b, headrace_workers as w, headrace_orchestrator as o\n"
    places += "print(*(module.__file__ for module in (headrace, b, w, o)), sep='\\n')"
    for place in installed.run("python", "-c", places, cwd=tmp_path).splitlines():
        assert Path(place).is_relative_to(installed.directory)


@pytest.mark.full_only
def test_an_editable_install_runs_from_the_source(empty: Callable[[], Environment], tmp_path: Path) -> None:
    pytest.importorskip(
        "editables", reason="editables is not installed (extra: test)"
    )  # what hatchling makes them with
    environment = empty()
    environment.install("--editable", ROOT)
    assert "  worker " in environment.run("headrace", "--help", cwd=tmp_path)
    for package, home in PACKAGES.items():
        place = environment.run("python", "-c", f"import {package}; print({package}.__file__)", cwd=tmp_path).strip()
        assert Path(place) == ROOT / home / package / "__init__.py"


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


def _contents(wheel: Path) -> dict[str, int]:
    """Of each file its checksum."""
    with zipfile.ZipFile(wheel) as opened:
        return {info.filename: info.CRC for info in opened.infolist()}
