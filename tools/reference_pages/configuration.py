"""The page of the settings: made of `Settings`, its docstrings, and the options of the commands."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args, get_origin

import typer
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from headrace.cli.app import app
from headrace_broker.settings import Settings, Written

from .markdown import notice, table

EVERYWHERE: Final = "every command that asks a server, and `Client()`"
INTRODUCTION: Final = """\
# Configuration

Every setting is an environment variable and an option of commands. An option goes first, then the variable, then the
default. An empty variable counts as not set. What cannot be used is exit code 2, and the message names it.

A duration is a number of seconds, or text: `500ms`, `10s`, `1m`, `1h30m`.

"""
REMARKS: Final = """
`headrace dev` has a lease, a grace, a concurrency and a log level of its own, and no metrics; the other variables reach
its processes. Which server a command asks if nobody says: [commands](cli.md#which-server). What a server needs:
[a server](../howto/server.md).
"""


def page() -> str:
    """The page of the settings."""
    rows = [
        (
            f"`HEADRACE_{name.upper()}`",
            _option(name),
            _type(name, field),
            _default(name, field),
            _users(name),
            _meaning(name),
        )
        for name, field in Settings.model_fields.items()
    ]
    settings = table(("variable", "option", "type", "default", "used by", "meaning"), rows)
    return INTRODUCTION + notice("broker/headrace_broker/settings.py") + "\n" + settings + REMARKS


def _docstrings() -> Mapping[str, list[str]]:
    """Of each setting the sentences that say what it means."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(Settings))).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, list[str]] = {}
    for statement, after in zip(tree.body, tree.body[1:], strict=False):
        match statement, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split()).removesuffix(".").split(". ")
            case _:
                pass
    return found


MEANINGS: Final = _docstrings()


def _meaning(name: str) -> str:
    sentences = [each for each in MEANINGS.get(name, ()) if not each.startswith("None: ")]
    if not sentences:
        raise ValueError(f"Settings.{name} has no docstring that says what it means")
    return ". ".join(sentences)


def _default(name: str, field: FieldInfo) -> str:
    if field.default is None or field.default == ():
        said = [each.removeprefix("None: ") for each in MEANINGS.get(name, ()) if each.startswith("None: ")]
        if not said:
            raise ValueError(f'The docstring of Settings.{name} has no sentence that begins with "None: "')
        return said[0]
    if (written := _written(field)) is not None and written.startswith("duration"):
        return f"`{_shortest(field.default)}`"
    return f"{field.default:,}" if isinstance(field.default, int) and field.default >= 100_000 else f"`{field.default}`"


def _type(name: str, field: FieldInfo) -> str:
    facts = list(_facts(field))
    written = _written(field)
    if written is None and any(isinstance(fact, BeforeValidator) for fact in facts):
        raise ValueError(f"Settings.{name} is read in a way of its own; say by Written(...) how it is written")
    words = written or _plain(facts)
    low, high = (next((getattr(fact, of) for fact in facts if hasattr(fact, of)), None) for of in ("ge", "le"))
    if low is None:
        return words
    shown = [_bound(value, words) for value in (low, high) if value is not None]
    return f"{words}, {' to '.join(shown)}" if high is not None else f"{words}, at least {shown[0]}"


def _bound(value: int, words: str) -> str:
    if words.startswith("duration"):
        return f"`{_shortest(value)}`"
    return "1 MB" if value == 1_000_000 else f"{value:,}"


def _plain(facts: list[Any]) -> str:
    for fact in facts:
        if get_origin(fact) is Literal:
            return "one of " + ", ".join(f"`{each}`" for each in get_args(fact))
    if int in facts:
        return "whole number"
    if str in facts:
        return "text"
    raise ValueError(f"no word for {facts}; say by Written(...) how it is written")


def _written(field: FieldInfo) -> str | None:
    return next((fact.how for fact in _facts(field) if isinstance(fact, Written)), None)


def _facts(field: FieldInfo) -> Iterator[Any]:
    """All that is said of a setting's type: its metadata, and the types it is made of."""

    def within(annotation: Any) -> Iterator[Any]:
        yield annotation
        if get_origin(annotation) is not Literal:
            for part in get_args(annotation):
                yield from within(part)
        yield from getattr(annotation, "metadata", ())

    yield from field.metadata
    yield from within(field.annotation)


def _shortest(ms: int) -> str:
    """A duration in the largest unit that leaves it whole."""
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms % length == 0 and (unit != "d" or ms > length):
            return f"{ms // length}{unit}"
    return f"{ms}ms"


def _commands() -> dict[str, frozenset[str]]:
    """The names of the settings that a command has as options without defaults of its own."""
    group: Any = typer.main.get_command(app)
    return {
        name: frozenset(each.name for each in command.params if each.default is None)
        for name, command in group.commands.items()
    }


COMMANDS: Final = _commands()


def _users(name: str) -> str:
    users = [f"`{command}`" for command, options in COMMANDS.items() if name in options]
    if len(users) > 4:
        return EVERYWHERE
    return ", ".join([*users, "`dev`"] if name == "partitions" else users)


def _option(name: str) -> str:
    flag = f"--{name.replace('_', '-')}"
    return f"`{flag}`" if any(name in options for options in COMMANDS.values()) else ""
