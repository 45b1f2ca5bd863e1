"""Following an instance: its history as it grows."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Final

from headrace_broker.backoff import Backoff
from headrace_broker.queries import HistoryEvent, HistoryReader

from .listener import Bell, Listener
from .session import Session

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
"""Seconds between two looks at a history that has not grown; only its end is told by the server."""


async def follow(session: Session, listener: Listener, reader: HistoryReader) -> AsyncGenerator[HistoryEvent]:
    """What the reader has before it, then what comes, each event once, until the instance has ended.

    Raises `InstanceNotFound`, also when the instance is deleted meanwhile, and `ServerUnreachable`.
    """
    backoff = Backoff(session.random, _FIRST_PAUSE, _LONGEST_PAUSE)
    bell: Bell | None = None
    async with AsyncExitStack() as stack:
        while True:
            page = await session.ask(reader.read, f"follow instance {reader.instance}")
            for event in page.events:
                yield event
            if page.more:
                continue
            if page.ended:
                return
            if page.events:
                backoff.reset()
            if bell is None:  # and then look again: it may have ended before the subscription was there
                channel = (await session.namespace()).of(reader.instance).ended(reader.incarnation or "")
                bell = await stack.enter_async_context(listener.listen(channel))
            else:
                await bell.wait(backoff.next())
