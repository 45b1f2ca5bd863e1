"""Asking over a link, in one line."""

from __future__ import annotations

from headrace_broker.connection import Argument, AsyncLink, Reply, raise_error


async def call_async(link: AsyncLink, *command: Argument) -> Reply:
    """One command and its reply. Raises `ServerError` and `ServerUnreachable`."""
    return raise_error((await link.exchange([command]))[0])
