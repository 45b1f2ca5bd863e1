"""Whatever is killed or lost, each instance ends as if nothing had been: for 20 seeds of the simulated world."""

from __future__ import annotations

import os
from collections import Counter
from functools import cache

import pytest

from .stories import INSTANCES, Outcome, live

SEEDS = int(os.environ.get("HEADRACE_TEST_SEEDS", "20"))
LOOKED_AT_AGAIN = range(3)

lived = cache(live)

together = pytest.mark.xdist_group("simulation")
"""In one process, where a life that was lived once need not be lived again."""

LASTING = {
    *("namespace", "queues", "workers", "flows", "flow", "definition", "definitions", "meta", "tasks"),
    *("owner", "worker", "request", "events", "starts", "signals"),
}
"""The kinds of keys that stay when every instance is deleted: permanent ones, those with a TTL, and inboxes."""


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=together) if seed in LOOKED_AT_AGAIN else seed for seed in range(SEEDS)]
)
def test_every_instance_completes_once_under_kills_and_lost_messages(seed: int) -> None:
    outcome = lived(seed)

    assert outcome.results == {f"i{number}": number * 7 for number in range(1, INSTANCES + 1)}
    for id, history in outcome.histories.items():
        completions = Counter(entry.fields["step"] for entry in history if entry.kind == "completed")
        assert set(completions.values()) == {1}, f"seed {seed}: a step of {id} completed twice"
        nodes = sorted(str(entry.node) for entry in history if entry.kind == "completed")
        assert nodes == ["a/flaky", "b/other", "first", "last", "merge"]
        assert [entry.kind for entry in history].count("ended") == 1
    assert outcome.left <= LASTING, f"seed {seed}"
    for step, times in outcome.executions.items():
        assert times >= 1, step


@together
def test_a_seed_replays_exactly() -> None:
    assert _trace(lived(0)) == _trace(live(0))


@together
def test_the_world_is_as_bad_as_it_claims() -> None:
    seen: Counter[str] = Counter()
    for seed in LOOKED_AT_AGAIN:
        seen += lived(seed).events

    assert min(seen[what] for what in ("orchestrator killed", "child killed", "keeper killed")) >= 1
    assert seen["lost reply"] >= 20
    assert seen["lost request"] >= 10


def _trace(outcome: Outcome) -> list[tuple[str, list[tuple[object, str]]]]:
    return sorted((id, [(entry.at, entry.kind) for entry in rows]) for id, rows in outcome.histories.items())
