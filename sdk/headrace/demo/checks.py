"""What has to be true at the end of the demo. Each check that does not hold is a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from . import flow, modules
from .histories import Story
from .modules import Module

_SHOWN: Final = 3


@dataclass(frozen=True)
class Result:
    """The numbers of a run, counted from the ledger and the histories."""

    instances: int
    steps: int
    retries: int
    redeliveries: int
    writes: int
    rows: int
    lost: int
    twice: int


def count(wanted: Sequence[Module], stories: Sequence[Story], stored: Sequence[tuple[str, str]], writes: int) -> Result:
    """`stored` as `Ledger.stored`."""
    times = Counter(module for module, _ in stored)
    return Result(
        instances=sum(story.status == "completed" for story in stories),
        steps=sum(story.completions.total() for story in stories),
        retries=sum(story.retries for story in stories),
        redeliveries=sum(len(story.lost) for story in stories),
        writes=writes,
        rows=len(stored),
        lost=sum(module.name not in times for module in wanted),
        twice=sum(number - 1 for number in times.values()),
    )


def problems(
    result: Result,
    wanted: Sequence[Module],
    stories: Sequence[Story],
    stored: Mapping[str, str],
    plain: Mapping[str, str],
) -> list[str]:
    """What does not hold. `stored` and `plain`: facts by module, of the flow and of the plain run."""
    found: list[str] = []
    if result.lost or result.twice or result.rows != len(wanted):
        found.append(f"{len(wanted)} rows were expected, {result.rows} found")
    if stored != plain:
        found.append(f"the plain run found something else for {_some(_different(stored, plain))}")
    if unended := [story.id for story in stories if story.status != "completed"]:
        found.append(f"not completed: {_some(unended)}")
    if wrong := [story.id for story in stories if not one_completion_per_step(story)]:
        found.append(f"not one completion per step: {_some(wrong)}")
    expected = sum(modules.stumbles(module.name) for module in wanted)
    if result.retries != expected:
        found.append(f"{expected} retries were expected, {result.retries} found")
    if result.redeliveries == 0:
        found.append("nothing was redelivered, so the kills hit nothing")
    return found


def one_completion_per_step(story: Story) -> bool:
    """Whether every step of the flow has completed, and none twice."""
    steps = {node.name for node in flow.survey.definition.nodes if node.kind == "task"}
    return {node for node, _, _ in story.completions} == steps and story.completions.total() == len(steps)


def _different(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
