"""Flows of the payload test: what comes out at the limits, and what cannot come out."""

from __future__ import annotations

from typing import Any

from headrace import Flow, task


@task
def echo(given: Any) -> Any:
    return given


@task(retries=3)
async def make(what: str) -> Any:
    """No two attempts: the same would come again."""
    if what == "circle":
        circle: list[Any] = []
        circle.append(circle)
        return circle
    if what == "generator":
        return (number for number in range(3))
    return bytes(2**20)


@task
def block(number: int) -> bytes:
    """A payload of 1 MiB on the wire."""
    return bytes([number]) * (2**20 - 5)


echoing = Flow("echoing").then(echo)
impossible = Flow("impossible", input=str).then(make)
together = (
    Flow("together", input=int)
    .fork()
    .branch("a", block)
    .branch("b", block)
    .branch("c", block)
    .branch("d", block)
    .join()
)
