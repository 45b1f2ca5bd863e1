"""SIGKILL at random moments: every instance completes, every step counts once, extra attempts are all that happens."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from headrace import Client
from headrace_broker.queries import HistoryEvent
from support.servers import FULL
from support.waiting import wait_until_async

from .deployment import Deployment
from .kill_app import flow

SEEDS = int(os.environ.get("HEADRACE_TEST_SEEDS", "3"))
INSTANCES = 200
KILLS = 3 if FULL else 2
STEPS = 6
APP = str(Path(__file__).with_name("kill_app.py"))


@pytest.mark.servers("valkey")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_all_complete_once_when_the_worker_is_killed(
    seed: int, server_url: str, namespace: str, tmp_path: Path
) -> None:
    await _survive("worker", seed, server_url, namespace, tmp_path)


@pytest.mark.servers("redis")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_all_complete_once_when_the_orchestrator_is_killed(
    seed: int, server_url: str, namespace: str, tmp_path: Path
) -> None:
    await _survive("orchestrator", seed, server_url, namespace, tmp_path)


async def _survive(victim: str, seed: int, server_url: str, namespace: str, tmp_path: Path) -> None:
    """200 instances, some kills, each as far along as chance says, and every promise checked."""
    random = Random(f"{victim}-{seed}")
    ledger = tmp_path / "ledger"
    ledger.touch()
    with Deployment(server_url, namespace, tmp_path, [APP], {"HEADRACE_TEST_LEDGER": str(ledger)}) as deployment:
        async with Client(server_url, namespace) as client:
            handles = await asyncio.gather(
                *(client.start(flow, number, id=f"i{number}") for number in range(INSTANCES))
            )
            for _ in range(KILLS):
                await _progress(ledger, random.uniform(0.02, 0.25))
                deployment.kill(random.choice(["child", "worker"]) if victim == "worker" else victim)
            results = await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
            histories = await asyncio.gather(*(client.history(f"i{number}") for number in range(INSTANCES)))

    assert results == [f"done {(2 * number + 3) * 2}" for number in range(INSTANCES)]
    for history in histories:
        _check_history(history)
    _check_ledger(ledger, histories)


async def _progress(ledger: Path, share: float) -> None:
    """Waits until the tasks have written `share` of all lines more than there are now."""
    wanted = min(_lines(ledger) + share * INSTANCES * STEPS, INSTANCES * STEPS * 0.95)
    await wait_until_async(lambda: _lines(ledger) >= wanted, 60, f"{wanted:.0f} lines in the ledger")


def _lines(ledger: Path) -> int:
    return ledger.read_bytes().count(b"\n")


def _check_history(history: Sequence[HistoryEvent]) -> None:
    """One completion per (run, node, branch), and one end."""
    completions = Counter(
        (entry.node, entry.fields["frame"], entry.fields["branch"]) for entry in history if entry.kind == "completed"
    )
    assert len(completions) == STEPS
    assert set(completions.values()) == {1}
    assert [entry.kind for entry in history].count("ended") == 1


def _check_ledger(ledger: Path, histories: Sequence[Sequence[HistoryEvent]]) -> None:
    """Each step ran; what ran more than once was handed out more than once."""
    runs = Counter(line.split()[0] for line in ledger.read_text().splitlines())
    assert len(runs) == INSTANCES * STEPS
    kinds = Counter(entry.kind for history in histories for entry in history)
    assert sum(runs.values()) <= kinds["dispatched"]


def test_the_ledger_check_can_fail(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.write_text("key step i0\n")

    with pytest.raises(AssertionError):
        _check_ledger(ledger, [])
