"""What the shell completes besides commands and options: ids of instances and names of flows, from the server.

A person who presses Tab waits for it, and did not ask for errors: it takes a second at most, and is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Final

import typer

from headrace_broker.errors import HeadraceError
from headrace_broker.instances import STATUSES
from headrace_broker.locate import EMBEDDED, embedded_directory, runs_in

if TYPE_CHECKING:
    from headrace.client import Client

SECONDS: Final = 1.0
_NEWEST: Final = 200


def instance_ids(context: typer.Context, incomplete: str) -> list[str]:
    """Of the newest instances."""

    async def ask(client: Client) -> list[str]:
        return [item.id for item in (await client.list(limit=_NEWEST)).items]

    return _starting(incomplete, _answer(context, ask))


def flow_names(context: typer.Context, incomplete: str) -> list[str]:
    """Of registered flows."""

    async def ask(client: Client) -> list[str]:
        return [flow.name for flow in await client.flows()]

    return _starting(incomplete, _answer(context, ask))


def statuses(incomplete: str) -> list[str]:
    return _starting(incomplete, STATUSES)


def _starting(incomplete: str, found: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(one for one in found if one.startswith(incomplete)))


def _answer(context: typer.Context, ask: Callable[[Client], Awaitable[list[str]]]) -> list[str]:
    """The answer of the server that the command line names so far; nothing if there is none in time."""
    from headrace.client import Client

    from .options import server_url

    logging.getLogger("headrace").addHandler(logging.NullHandler())
    logging.getLogger("headrace").propagate = False
    url = server_url(context.params.get("url"))

    async def run() -> list[str]:
        async with asyncio.timeout(SECONDS), Client(url, context.params.get("namespace"), retry_for="10ms") as client:
            return await ask(client)

    with contextlib.suppress(HeadraceError, TimeoutError, OSError), _at_most(2 * SECONDS):
        if not url.startswith(EMBEDDED) or runs_in(embedded_directory(url)):  # none is started for this
            return asyncio.run(run())
    return []


@contextlib.contextmanager
def _at_most(seconds: float) -> Generator[None]:
    """Ends the process then, silently: a name that is looked up in the network cannot be given up otherwise."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
