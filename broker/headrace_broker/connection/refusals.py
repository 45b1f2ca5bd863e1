"""What a server's errors mean to whoever runs Headrace: the one place where they are put into words.

A reply's error becomes a `ServerError`, of a class of its own where a caller may want to act on it. The server's own
words stay in it, for others look for them (such as NOGROUP).
"""

from __future__ import annotations

from typing import Final

import redis
from redis.exceptions import NoPermissionError

from headrace_broker.errors import (
    AccessDenied,
    ConfigurationError,
    ServerError,
    ServerFull,
    ServerNotReady,
    ServerUnreachable,
)
from headrace_broker.urls import shown

CREDENTIALS: Final = "They belong into the URL: redis://USER:PASSWORD@host:6379/0 (HEADRACE_URL, --url)."

_Meaning = tuple[type[Exception], type[ServerError], str, str]
_MEANINGS: Final[tuple[_Meaning, ...]] = (
    (
        redis.OutOfMemoryError,
        ServerFull,
        "The server is out of memory and takes nothing new",
        "Free some or raise its limit: redis-cli CONFIG SET maxmemory BYTES (redis-cli INFO memory shows both).",
    ),
    (redis.AuthenticationError, AccessDenied, "The server wants a password, or a user and password", CREDENTIALS),
    (
        NoPermissionError,
        AccessDenied,
        "The server does not let this user do what Headrace does",
        "Allow it the keys and channels of the namespace and the commands: redis-cli ACL SETUSER USER '~*' '&*' +@all",
    ),
    (redis.BusyLoadingError, ServerNotReady, "The server still loads its data", "Wait, or look into its log."),
    (
        redis.ReadOnlyError,
        ServerNotReady,
        "The server is a replica, which takes no writes",
        "Give the URL of its primary, or wait if it is being promoted.",
    ),
)


def explained(error: Exception) -> ServerError:
    """An error of redis-py's, made from a reply, as ours."""
    for kind, ours, meaning, advice in _MEANINGS:
        if isinstance(error, kind):
            return ours(f"{meaning}: {str(error).rstrip('.')}. {advice}")
    return ServerError(str(error))


def failed_connecting(url: str, error: Exception) -> ConfigurationError | ServerError | ServerUnreachable:
    """Why there is no connection: wrong user or password, another refusal, or nobody there."""
    for each in (error, error.__cause__):  # asyncio's connection wraps it
        if isinstance(each, redis.AuthenticationError):
            reason = str(each).rstrip(".")
            return ConfigurationError(
                f"The server at {shown(url)} refused the user or password: {reason}. {CREDENTIALS}"
            )
    if isinstance(error, redis.RedisError) and not isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return ServerError(f"The server at {shown(url)} refused the connection: {error}")
    return ServerUnreachable(f"No server answers at {shown(url)}: {error}")
