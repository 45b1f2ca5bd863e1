"""`init`: a first file that runs, and what to type next."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from headrace_broker.errors import ConfigurationError

from .output import console

APP: Final = '''\
"""A first flow. Run it: headrace dev {file}"""

from headrace import Flow, TaskContext, task


@task(retries=3)
def greet(name: str, ctx: TaskContext) -> str:
    if ctx.attempt == 1:
        raise ConnectionError("the first try fails, the next one does not")
    return f"Hello, {{name}}!"


@task
def shout(greeting: str) -> str:
    return greeting.upper()


hello = Flow("hello", input=str).then(greet).delay("2s").then(shout)
'''

NEXT: Final = """\
{file} is written: a step that is tried again, a delay, another step. Run it:

    headrace dev {file}

and in a second terminal, in this directory:

    headrace start hello --input '"Ada"' --id hello-1
    headrace watch hello-1
    headrace start hello --input '"Grace"' --wait

Change {file} while it runs: the worker starts again with it, and what runs goes on."""


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="The Python file to write.")] = Path("app.py"),
) -> None:
    """Write a first app of ten lines, and print how to run it. What is there already is left alone."""
    _check(file)
    typed = shlex.quote(str(file))
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(APP.format(file=file.name))
    except FileExistsError:
        raise ConfigurationError(
            f"{file} is there already, and is left as it is. Name another file: headrace init {_another(file)}"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror or error}.") from None
    console().print(NEXT.format(file=typed), markup=False)


def _check(file: Path) -> None:
    """Raises `ConfigurationError` for a name under which the app could not be run."""
    if file.suffix != ".py":
        raise ConfigurationError(f"The app is a Python file, whose name ends in .py; got {str(file)!r}.")
    if not file.parent.is_dir():
        raise ConfigurationError(
            f"There is no directory {file.parent} to write {file.name} into: mkdir -p {shlex.quote(str(file.parent))}"
        )
    if not file.exists() and _hides_a_module(file.stem):
        raise ConfigurationError(
            f"{file.name} would hide the module {file.stem!r} from everything that imports it. "
            f"Name another file: headrace init {_another(file)}"
        )


def _hides_a_module(name: str) -> bool:
    if name in sys.stdlib_module_names:
        return True
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    return spec is not None and spec.origin is not None  # without one it is a mere directory


def _another(file: Path) -> str:
    return shlex.quote(str(file.with_name(f"my_{file.name}")))


def add_to(app: typer.Typer) -> None:
    app.command()(init)
