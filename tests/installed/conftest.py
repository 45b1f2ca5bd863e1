"""The distributions, built once, and environments to install them into."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Environment:
    """A virtual environment with all that Headrace depends on, by reference to ours, and without Headrace."""

    directory: Path

    @property
    def python(self) -> Path:
        return self.directory / "bin/python"

    @classmethod
    def create(cls, directory: Path) -> Environment:
        venv.create(directory, symlinks=True, with_pip=False)
        made = cls(directory)
        packages = Path(made.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        # What a .pth file names is on the path, but .pth files in there, as that of our editable install, are not read.
        (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        return made

    def install(self, *arguments: str | Path) -> None:
        """Nothing is downloaded, and nothing of ours is touched: whatever is there counts as not installed."""
        pip = (sys.executable, "-m", "pip", "--python", self.python, "install", "-q", "--no-compile")
        _run(
            [*pip, "--no-deps", "--no-index", "--ignore-installed", "--no-build-isolation", *arguments], self.directory
        )

    def run(self, program: str, *arguments: str | Path, cwd: Path | None = None) -> str:
        """What a program of the environment prints. It must succeed, and leave stderr empty."""
        return _run([self.directory / "bin" / program, *arguments], cwd or self.directory)


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path


@pytest.fixture(scope="package")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(ROOT, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="package")
def build_from() -> Callable[[Path, Path], Built]:
    return build


@pytest.fixture(scope="package")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Environment]:
    return lambda: Environment.create(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture(scope="package")
def installed(built: Built, empty: Callable[[], Environment]) -> Environment:
    """An environment with the wheel."""
    environment = empty()
    environment.install(built.wheel)
    return environment


def build(source: Path, into: Path) -> Built:
    """By the project's own build backend, with neither a download nor an isolated environment."""
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", into], source)
    return Built(next(into.glob("*.whl")), next(into.glob("*.tar.gz")))


def _run(command: Sequence[str | Path], cwd: Path) -> str:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HEADRACE_", "VIRTUAL"))
    }
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
