"""Connections to the server: commands out, replies in, and nothing repeated behind the caller's back.

redis-py sends a command again when its reply was lost, which would apply a commit twice (DESIGN 5). So every
connection here is made with retries off, and a lost reply is the caller's to handle, as `ServerUnreachable`.

    link            what a connection is, and how to ask something over it
    server          connections to a real server, by URL
    redis_link      these connections, over redis-py's; parsing reads their replies in bulk
    subscription    messages of channels
    refusals        what the server's errors mean
"""

from __future__ import annotations

from headrace_broker.urls import shown

from .link import (
    Argument,
    AsyncLink,
    Command,
    Connector,
    Link,
    Reply,
    Subscription,
    call,
    exchange,
    is_wrong_type,
    raise_error,
)
from .redis_link import is_packing
from .server import ANONYMOUS, Server

__all__ = [
    "ANONYMOUS",
    "Argument",
    "AsyncLink",
    "Command",
    "Connector",
    "Link",
    "Reply",
    "Server",
    "Subscription",
    "call",
    "exchange",
    "is_packing",
    "is_wrong_type",
    "raise_error",
    "shown",
]
