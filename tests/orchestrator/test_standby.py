"""An orchestrator that owns nothing: it waits for its chance and costs next to nothing meanwhile."""

from __future__ import annotations

import time

import pytest

from .bench import Bench

pytestmark = pytest.mark.real_only


def test_a_standby_waits_instead_of_spinning(bench: Bench) -> None:
    owner = bench.orchestrator()
    owner.step(max_block_ms=0)
    standby = bench.orchestrator(seed=1)
    began, turns = time.monotonic(), 0
    while time.monotonic() - began < 2.5:
        standby.step()
        owner.step(max_block_ms=0)
        turns += 1
    # It tries to become owner four times an ownership lease, and looks up from a wait once a second.
    assert turns <= 12
    assert standby.owned == []
