"""The page of the errors: made of the tree, its docstrings, and the exit codes of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from headrace import GiveUp
from headrace.cli.exits import exit_code
from headrace_broker.errors import HeadraceError, meaning, remedy

from .markdown import notice, table

HOMES: Final = (HeadraceError.__module__, GiveUp.__module__)
"""The modules whose errors are public."""

INTRODUCTION: Final = """\
# Errors

All are in `headrace.errors`, the common ones in `headrace` too. Every one is a `HeadraceError` with a stable `code`
for machines. The message says what was expected, what came and what to do; `ids` names what it is about.

```python
from headrace import Client, HeadraceError, InstanceExists


async def once(client: Client, id: str) -> str:
    try:
        await client.start("orders", {"id": "42", "total": 9}, id=id)
    except InstanceExists:
        return "it runs already"
    except HeadraceError as error:
        return f"{error.code}: {error}"
    return "started"
```

The last column is the exit code of a command that ends so; [what they mean](cli.md). Why a *step* failed, by
your exception or one of these, `headrace show` says: [errors of a step](steps.md#when-it-runs-errors-of-a-step).

"""


def page() -> str:
    """The page of the errors: a section for each branch of the tree."""
    parts = [INTRODUCTION + notice("broker/headrace_broker/errors.py, what the docstrings say"), _tree()]
    for branch in _below(HeadraceError):
        rows = [
            (f"`{each.__name__}`", f"`{each.code}`", meaning(each), _remedy(each), str(exit_code(each.__new__(each))))
            for each in _family(branch)
        ]
        parts.append(f"## {branch.__name__}\n\n" + table(("error", "code", "means", "what to do", "exit"), rows))
    return "\n".join(parts)


def _remedy(error: type[HeadraceError]) -> str:
    if not (said := remedy(error)):
        raise ValueError(f"the docstring of {error.__name__} has no last paragraph that says what to do")
    return said


def _tree() -> str:
    lines = ["```text", HeadraceError.__name__]

    def draw(error: type[HeadraceError], indent: str) -> None:
        below = _below(error)
        for each in below:
            last = each is below[-1]
            lines.append(f"{indent}{'└── ' if last else '├── '}{each.__name__}")
            draw(each, indent + ("    " if last else "│   "))

    draw(HeadraceError, "")
    return "\n".join([*lines, "```", ""])


def _family(error: type[HeadraceError]) -> Iterator[type[HeadraceError]]:
    yield error
    for each in _below(error):
        yield from _family(each)


def _below(error: type[HeadraceError]) -> list[type[HeadraceError]]:
    """The public subclasses, in the order of their definition."""
    return [each for each in error.__subclasses__() if each.__module__ in HOMES and not each.__name__.startswith("_")]
