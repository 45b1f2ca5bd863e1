"""The flows of the chain benchmark: what the worker loads and the client starts."""

from __future__ import annotations

from headrace import Flow, task

STEPS = 10


@task
async def no_op(value: int) -> int:
    """Does nothing but count, so that a lost or repeated step shows in the result."""
    return value + 1


def chain_of(name: str, steps: int) -> Flow[int, int]:
    flow: Flow[int, int] = Flow(name, input=int)
    for number in range(1, steps + 1):
        flow = flow.then(no_op, name=f"step_{number}")
    return flow


chain = chain_of("bench-chain", STEPS)
one = chain_of("bench-one", 1)
