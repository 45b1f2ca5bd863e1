"""A client for one command: it waits a little for a server that does not answer, and says so."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from .options import server_url

if TYPE_CHECKING:
    from headrace.client import Client

T = TypeVar("T")

RETRY_FOR: Final = "5s"


class _Waiting(logging.Handler):
    """The client's warnings, which say what it waits for, as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)


def with_client(url: str | None, namespace: str | None, command: Callable[[Client], Awaitable[T]]) -> T:
    """Runs `command` with a client. Raises what it raises."""
    from headrace.client import Client

    async def run() -> T:
        async with Client(server_url(url), namespace, retry_for=RETRY_FOR) as client:
            return await command(client)

    logger = logging.getLogger("headrace.client")
    handler = _Waiting(logging.WARNING)
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        return asyncio.run(run())
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
