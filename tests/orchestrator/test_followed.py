"""What a follower of a real engine is told is its history."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace import SyncClient

from . import flows
from .bench import Bench, settle


@pytest.mark.real_only
def test_followers_are_told_the_whole_history_once(bench: Bench, server_url: str, namespace: str) -> None:
    definition = bench.register(flows.chain("a", "b", "c"))
    bench.start("c", definition, 7)
    orchestrator, hand = bench.orchestrator(), bench.hand()
    with SyncClient(server_url, namespace) as client, ThreadPoolExecutor(4) as pool:
        following = [pool.submit(list, client.handle("c").events()) for _ in range(4)]
        settle(orchestrator, hand)
        history = bench.history("c")
        assert history[-1].kind == "ended"
        for follower in following:
            assert follower.result(10) == history
        for place, event in enumerate(history):
            assert list(client.handle("c").events(event.position)) == history[place + 1 :]
