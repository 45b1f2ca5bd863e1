"""Headrace against the bare loop, in one run on one server: throughput of chains, latency of a step.

Each round is one bare loop, one `two_hops` and one real run (`harness.py` says what is timed), so that a
noisy machine hits both sides; the medians over the rounds are compared. The server is a process of this
benchmark: loopback, append-only, fsync each second.

    python benchmarks/chain.py [--quick] [--json] [--min-ratio 0.25] [--url URL] [--instances N] [--rounds K]

Exit code 1: the throughput ratio is below `--min-ratio`, or the run failed. Targets: DESIGN 10.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import bare_loop
import harness
from bench_server import own_server
from chain_flow import STEPS


@dataclasses.dataclass(frozen=True)
class Plan:
    """`deadline`: seconds for everything, after which the benchmark fails instead of holding CI up."""

    instances: int
    rounds: int
    latency_samples: int
    deadline: float


QUICK = Plan(instances=1000, rounds=3, latency_samples=60, deadline=60.0)
FULL = Plan(instances=4000, rounds=5, latency_samples=400, deadline=600.0)


@dataclasses.dataclass(frozen=True)
class Report:
    """Medians over the rounds; seconds. `*_hops` are multiples of two bare stream hops."""

    rounds: int
    instances: int
    steps: int
    bare_steps_per_second: float
    headrace_steps_per_second: float
    throughput_ratio: float
    two_hops: float
    one_step_p50: float
    one_step_p95: float
    further_step_p50: float
    one_step_hops: float
    further_step_hops: float
    bare_rounds: tuple[float, ...]
    headrace_rounds: tuple[float, ...]


def measure(url: str, plan: Plan, say: Callable[[str], None]) -> Report:
    """Raises TimeoutError past the plan's deadline."""
    end = time.monotonic() + plan.deadline
    bare: list[bare_loop.Result] = []
    hops: list[float] = []
    real: list[harness.Measured] = []
    for number in range(1, plan.rounds + 1):
        bare.append(bare_loop.run(url, plan.instances, STEPS))
        hops.append(bare_loop.two_hops(url, 300))
        left = end - time.monotonic()
        real.append(asyncio.run(harness.measure(url, plan.instances, plan.latency_samples, left)))
        say(
            f"round {number}/{plan.rounds}: bare {bare[-1].steps_per_second:,.0f} steps/s,"
            f" headrace {real[-1].steps_per_second:,.0f} steps/s"
        )
    return report(plan, bare, hops, real)


def report(
    plan: Plan, bare: Sequence[bare_loop.Result], hops: Sequence[float], real: Sequence[harness.Measured]
) -> Report:
    bare_rounds = tuple(result.steps_per_second for result in bare)
    headrace_rounds = tuple(result.steps_per_second for result in real)
    two_hops = statistics.median(hops)
    p50 = statistics.median(harness.percentile(result.one_step, 50) for result in real)
    p95 = statistics.median(harness.percentile(result.one_step, 95) for result in real)
    alone = statistics.median(harness.percentile(result.chain, 50) for result in real)
    further = (alone - p50) / (STEPS - 1)
    return Report(
        rounds=plan.rounds,
        instances=plan.instances,
        steps=STEPS,
        bare_steps_per_second=statistics.median(bare_rounds),
        headrace_steps_per_second=statistics.median(headrace_rounds),
        throughput_ratio=statistics.median(headrace_rounds) / statistics.median(bare_rounds),
        two_hops=two_hops,
        one_step_p50=p50,
        one_step_p95=p95,
        further_step_p50=further,
        one_step_hops=p50 / two_hops,
        further_step_hops=further / two_hops,
        bare_rounds=bare_rounds,
        headrace_rounds=headrace_rounds,
    )


def lines(found: Report) -> str:
    return "\n".join(
        (
            f"{found.instances} chains of {found.steps} steps, median of {found.rounds} rounds",
            f"  bare loop   {found.bare_steps_per_second:10,.0f} steps/s",
            f"  headrace    {found.headrace_steps_per_second:10,.0f} steps/s   ratio {found.throughput_ratio:.3f}",
            f"  two hops    {found.two_hops * 1000:10.3f} ms",
            f"  1-step flow {found.one_step_p50 * 1000:10.3f} ms p50, {found.one_step_p95 * 1000:.3f} ms p95,"
            f" start to result   {found.one_step_hops:.1f} × two hops",
            f"  each step   {found.further_step_p50 * 1000:10.3f} ms p50, a further step of an idle chain"
            f"   {found.further_step_hops:.1f} × two hops",
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Headrace against the bare loop: steps/s and a step's latency.")
    parser.add_argument("--quick", action="store_true", help="at most a minute, for `make bench-quick`")
    parser.add_argument("--json", action="store_true", help="the report as one JSON object on stdout")
    parser.add_argument("--min-ratio", type=float, default=0.0, help="exit with 1 when throughput is below")
    parser.add_argument("--url", help="a running server; without it one is started and stopped")
    parser.add_argument("--server", help="the server's program; default: redis-server or valkey-server from PATH")
    parser.add_argument("--instances", type=int)
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    plan = dataclasses.replace(
        plan, instances=options.instances or plan.instances, rounds=options.rounds or plan.rounds
    )
    with own_server(options.url, options.server) as url:
        try:
            found = measure(url, plan, lambda line: print(line, file=sys.stderr, flush=True))
        except TimeoutError as error:
            print(f"failed: {error or f'not done within {plan.deadline:.0f} s'}", file=sys.stderr)
            return 1
    print(json.dumps(dataclasses.asdict(found)) if options.json else lines(found))
    if found.throughput_ratio < options.min_ratio:
        print(f"throughput ratio {found.throughput_ratio:.3f} is below {options.min_ratio}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
