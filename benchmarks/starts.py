"""Starts in a second: one by one, many at once, and `start_many`; in one run on one server.

Each round does all three in turn, so that a noisy machine hits all; medians over the rounds are compared. The server is
as in `chain.py`. No orchestrator runs: a start is done when it is durable.

    python benchmarks/starts.py [--json] [--rounds K] [--starts N] [--url URL]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

from bench_server import own_server
from chain_flow import one

from headrace import Client

#: Calls in flight at once, of the second way.
IN_FLIGHT = 256


async def one_by_one(client: Client, count: int) -> None:
    for number in range(count):
        await client.start(one, number)


async def at_once(client: Client, count: int) -> None:
    for first in range(0, count, IN_FLIGHT):
        await asyncio.gather(*(client.start(one, first + n) for n in range(min(IN_FLIGHT, count - first))))


async def in_bulk(client: Client, count: int) -> None:
    async for answer in client.start_many(one, range(count)):
        assert answer.error is None, answer.error


WAYS: dict[str, Callable[[Client, int], Awaitable[None]]] = {
    "one_by_one": one_by_one,
    "at_once": at_once,
    "start_many": in_bulk,
}


async def measure(url: str, rounds: int, count: int) -> dict[str, float]:
    """Starts a second, by way; the median over the rounds."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        async with Client(url, f"bench-{uuid4().hex[:8]}") as client:
            await client.start(one, 0)
            for way, start in WAYS.items():
                begun = time.perf_counter()
                await start(client, count)
                found[way].append(count / (time.perf_counter() - begun))
    return {way: statistics.median(rates) for way, rates in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=5000)
    parser.add_argument("--url", help="a server to use, with its namespaces bench-*; else one of its own")
    options = parser.parse_args()
    with own_server(options.url) as url:
        rates = asyncio.run(measure(url, options.rounds, options.starts))
    ratios = {way: rates["start_many"] / rates[way] for way in ("one_by_one", "at_once")}
    if options.json:
        print(json.dumps({"starts_per_second": rates, "start_many_over": ratios}))
        return
    for way, rate in rates.items():
        print(f"{way.replace('_', ' '):12} {rate:8,.0f} starts/s")
    print(f"start_many is {ratios['one_by_one']:.1f} times one by one, {ratios['at_once']:.1f} times at once")


if __name__ == "__main__":
    main()
