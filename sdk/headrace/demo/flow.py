"""The demo's flows: what its worker runs. `headrace worker headrace.demo.flow` finds them.

They are what an author would write: plain functions as steps, options where one needs them. Where the data lies comes
from the environment, for a worker may run anywhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace import Flow, RetryPolicy, Signal, TaskContext, task

from . import modules, reporting
from .ledger import Ledger
from .modules import Complexity, Docstrings, Facts, Module, Outline, Size, Source

DIRECTORY_VARIABLE: Final = "HEADRACE_DEMO_DIR"


class Stumble(Exception):
    """What the first attempt to parse one module in twenty raises."""


@dataclass(frozen=True)
class Approval:
    by: str


approval = Signal("approval", Approval)


@task
def read(module: Module) -> Source:
    return modules.read(module)


@task(retries=RetryPolicy(max_retries=2, initial_delay="100ms"))
def parse(source: Source, ctx: TaskContext) -> Outline:
    if ctx.attempt == 1 and modules.stumbles(source.module.name):
        raise Stumble(f"the first attempt at {source.module.name} fails on purpose")
    return modules.parse(source)


@task
def size(outline: Outline) -> Size:
    return modules.size(outline)


@task
async def imports(outline: Outline) -> list[str]:
    return modules.imports(outline)


@task
async def docstrings(outline: Outline) -> Docstrings:
    return modules.docstrings(outline)


@task(isolation="process")
def complexity(outline: Outline) -> Complexity:
    return modules.complexity(outline)


@task
def assemble(size: Size, imports: list[str], docstrings: Docstrings, complexity: Complexity) -> Facts:
    return modules.assemble(size, imports, docstrings, complexity)


@task
def store(facts: Facts, ctx: TaskContext) -> bool:
    """True if this write made the row. The key is the same for all attempts and deliveries of this step."""
    return Ledger(_directory()).store(ctx.idempotency_key, ctx.dispatch_id, facts)


survey = (
    Flow("modules", input=Module)
    .then(read)
    .then(parse)
    .fork()
    .branch("size", size)
    .branch("imports", imports)
    .branch("docstrings", docstrings)
    .branch("complexity", complexity)
    .join(assemble)
    .then(store)
)


@task
def draft(title: str) -> str:
    """The report's text, from what the ledger holds."""
    return reporting.report(title, Ledger(_directory()).facts())


@task
def publish(approved: tuple[str, Approval]) -> str:
    """Writes the report and returns its path. A second delivery writes the same again."""
    text, approval = approved
    return str(reporting.write(_directory(), f"{text}\nApproved by {approval.by}.\n"))


report = Flow("report", input=str).then(draft).wait_for_signal(approval, keep_input=True).then(publish)


def _directory() -> Path:
    return Path(os.environ[DIRECTORY_VARIABLE])
