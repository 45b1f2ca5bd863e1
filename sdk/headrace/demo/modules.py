"""What the demo does to one module of the standard library, as plain functions that know nothing of Headrace.

    read → parse → size · imports · docstrings · complexity → assemble

The flow makes them tasks, and `measure` calls them one after the other: what both find must be equal.
"""

from __future__ import annotations

import ast
import json
import os
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final
from zlib import crc32

_LEFT_OUT: Final = frozenset({"__pycache__", "idle_test", "test", "tests"})
"""Directories besides those whose names have a dash (`site-packages`), which no module can be in."""
_MAX_BYTES: Final = 900_000
"""A payload has a limit of 1 MiB."""
_ONE_IN: Final = 20

_PARSING: Final = Lock()
"""In threads side by side, `ast.parse` of CPython 3.11 may raise "AST constructor recursion depth mismatch"
(python/cpython#106905)."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A module of the standard library and its file."""

    name: str
    path: str


@dataclass(frozen=True)
class Source:
    module: Module
    text: str


@dataclass(frozen=True)
class Definition:
    """A class or function. `decisions` has, for each `if`, loop, `except` and `case`, how deep it is nested."""

    name: str
    kind: str
    docstring: str | None
    decisions: list[int] = field(default_factory=list[int])


@dataclass(frozen=True)
class Outline:
    """What of a module's syntax tree the later steps need. `imports` as written, relative ones with their dots."""

    module: str
    package: str
    text: str
    docstring: str | None
    imports: list[str]
    definitions: list[Definition]


@dataclass(frozen=True)
class Size:
    module: str
    bytes: int
    lines: int
    blank: int
    comments: int


@dataclass(frozen=True)
class Docstrings:
    """How many of the module, its classes and functions could have a docstring, have one, and how many words."""

    possible: int
    written: int
    words: int


@dataclass(frozen=True)
class Complexity:
    """McCabe's number summed over functions, a number weighted by nesting, and the most complex function."""

    functions: int
    cyclomatic: int
    cognitive: int
    hardest: str
    hardest_cyclomatic: int


@dataclass(frozen=True)
class Facts:
    """All that is known of a module in the end: one row of the ledger."""

    module: str
    size: Size
    imports: list[str]
    docstrings: Docstrings
    complexity: Complexity

    def to_json(self) -> str:
        """The same text for the same facts."""
        return json.dumps(asdict(self), sort_keys=True)


def standard_library(root: Path | None = None) -> list[Module]:
    """Every module of this Python's standard library but its tests, by name."""
    base = Path(sysconfig.get_path("stdlib")) if root is None else root
    found: dict[str, Module] = {}
    for directory, inner, files in os.walk(base):
        inner[:] = sorted(name for name in inner if name.isidentifier() and name not in _LEFT_OUT)
        parts = Path(directory).relative_to(base).parts
        for file in sorted(files):
            path = Path(directory, file)
            if path.suffix != ".py" or not path.stem.isidentifier() or path.stat().st_size > _MAX_BYTES:
                continue
            name = ".".join(parts if parts and path.stem == "__init__" else (*parts, path.stem))
            found.setdefault(name, Module(name, str(path)))
    return [found[name] for name in sorted(found)]


def choose(modules: Sequence[Module], limit: int | None) -> list[Module]:
    """All of them, or `limit` evenly spread."""
    if limit is None or limit >= len(modules):
        return list(modules)
    return [modules[number * len(modules) // limit] for number in range(limit)]


def stumbles(module: str) -> bool:
    """Whether the flow's first attempt to parse this module fails: one in twenty, by hash."""
    return crc32(module.encode()) % _ONE_IN == 0


def read(module: Module) -> Source:
    """The text of a module, decoded as Python does."""
    with tokenize.open(module.path) as lines:
        return Source(module, lines.read())


def parse(source: Source) -> Outline:
    """The module's outline. Raises `SyntaxError`."""
    with _PARSING:
        tree = ast.parse(source.text, source.module.path)
    imports: list[str] = []
    definitions: list[Definition] = []
    _survey(tree.body, "", 0, [], imports, definitions)
    name = source.module.name
    package = name if Path(source.module.path).stem == "__init__" else name.rpartition(".")[0]
    return Outline(name, package, source.text, ast.get_docstring(tree), imports, definitions)


def _survey(
    body: Iterable[ast.stmt],
    prefix: str,
    depth: int,
    decisions: list[int],
    imports: list[str],
    definitions: list[Definition],
) -> None:
    """Statements only: no expression decides here, and there are many."""
    for statement in body:
        match statement:
            case ast.Import():
                imports += [alias.name for alias in statement.names]
            case ast.ImportFrom():
                imports.append("." * statement.level + (statement.module or ""))
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                name = f"{prefix}{statement.name}"
                kind = "function" if isinstance(statement, _Function) else "class"
                made = Definition(name, kind, ast.get_docstring(statement))
                definitions.append(made)
                _survey(statement.body, f"{name}.", 0, made.decisions, imports, definitions)
            case _:
                for inner, step in _inside(statement, depth, decisions):
                    _survey(inner, prefix, depth + step, decisions, imports, definitions)


def _inside(statement: ast.stmt, depth: int, decisions: list[int]) -> Iterator[tuple[list[ast.stmt], int]]:
    """The blocks of a statement, with how much deeper they lie; notes the decisions that it makes."""
    match statement:
        case ast.If(body=body, orelse=rest):
            decisions.append(depth)
            yield body, 1
            chained = len(rest) == 1 and isinstance(rest[0], ast.If)
            yield rest, 0 if chained else 1
        case ast.For() | ast.AsyncFor() | ast.While():
            decisions.append(depth)
            yield statement.body, 1
            yield statement.orelse, 1
        case ast.With() | ast.AsyncWith():
            yield statement.body, 0
        case ast.Try() | ast.TryStar():
            yield statement.body, 0
            for handler in statement.handlers:
                decisions.append(depth)
                yield handler.body, 1
            yield statement.orelse, 0
            yield statement.finalbody, 0
        case ast.Match(cases=cases):
            for case in cases:
                decisions.append(depth)
                yield case.body, 1
        case _:
            return


def size(outline: Outline) -> Size:
    stripped = [line.strip() for line in outline.text.splitlines()]
    return Size(
        module=outline.module,
        bytes=len(outline.text.encode()),
        lines=len(stripped),
        blank=stripped.count(""),
        comments=sum(line.startswith("#") for line in stripped),
    )


def imports(outline: Outline) -> list[str]:
    """The modules it imports, relative ones resolved, each once and sorted."""
    found: set[str] = set()
    for name in outline.imports:
        level = len(name) - len(name.lstrip("."))
        if level == 0:
            found.add(name)
            continue
        parts = outline.package.split(".")
        base = ".".join(parts[: len(parts) - level + 1])
        found.add(f"{base}.{name[level:]}".strip("."))
    return sorted(found)


def docstrings(outline: Outline) -> Docstrings:
    texts = [outline.docstring, *(definition.docstring for definition in outline.definitions)]
    written = [text for text in texts if text]
    return Docstrings(len(texts), len(written), sum(len(text.split()) for text in written))


def complexity(outline: Outline) -> Complexity:
    """McCabe's number of a function is 1 + its decisions; in the weighted one a decision counts 1 + its depth."""
    functions = [definition for definition in outline.definitions if definition.kind == "function"]
    hardest = max(functions, key=lambda function: (len(function.decisions), function.name), default=None)
    return Complexity(
        functions=len(functions),
        cyclomatic=sum(1 + len(function.decisions) for function in functions),
        cognitive=sum(1 + depth for function in functions for depth in function.decisions),
        hardest=hardest.name if hardest is not None else "",
        hardest_cyclomatic=1 + len(hardest.decisions) if hardest is not None else 0,
    )


def assemble(size: Size, imports: list[str], docstrings: Docstrings, complexity: Complexity) -> Facts:
    return Facts(size.module, size, imports, docstrings, complexity)


def measure(module: Module) -> Facts:
    """The whole flow but the storing, in one process and without Headrace."""
    outline = parse(read(module))
    return assemble(size(outline), imports(outline), docstrings(outline), complexity(outline))
