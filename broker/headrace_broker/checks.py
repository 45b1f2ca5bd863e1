"""What a process checks before it works on a server: that it is one Headrace can run on, and keeps what it is given."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from .connection import Command, Reply, raise_error
from .conversations import Conversation
from .errors import EvictionPolicyRefused, ServerError, UnsupportedServer

OLDEST_REDIS: Final = (7, 0)
POLICY: Final = "noeviction"
MEND_POLICY: Final = f"redis-cli CONFIG SET maxmemory-policy {POLICY}"

_log = logging.getLogger("headrace.checks")


@dataclass(frozen=True)
class ServerInfo:
    """What the server says of itself. `run_id` is another one after each restart."""

    kind: Literal["redis", "valkey"]
    version: str
    run_id: str

    def __str__(self) -> str:
        return f"{self.kind.capitalize()} {self.version}"


QUESTIONS: Final[tuple[Command, ...]] = (
    ("INFO", "server"),
    ("CONFIG", "GET", "maxmemory-policy"),
    ("INFO", "memory"),  # managed servers refuse CONFIG
)


def check_server() -> Conversation[ServerInfo]:
    """Who the server is, if Headrace can run on it.

    Raises `UnsupportedServer` for a Redis before 7.0, or what is neither Redis nor Valkey; `EvictionPolicyRefused`
    for a server that may evict keys, even if it has no memory limit now.
    """
    replies = yield QUESTIONS
    server = _identify(_fields(replies[0]))
    if not _check_policy(replies):
        _log.warning("The server does not tell its maxmemory-policy; it must be %s, or state may be lost.", POLICY)
    return server


def check_as_client(replies: Sequence[Reply]) -> None:
    """The same for the replies to `QUESTIONS`, but what the server does not tell is well: processes look closer.

    Raises `UnsupportedServer` and `EvictionPolicyRefused`.
    """
    if not isinstance(replies[0], ServerError):
        _identify(_fields(replies[0]))
    _check_policy(replies)


def _check_policy(replies: Sequence[Reply]) -> bool:
    """False if the server does not tell. Raises `EvictionPolicyRefused`."""
    policy = _policy(replies[1])
    if policy is None and not isinstance(replies[2], ServerError):
        policy = _fields(replies[2]).get("maxmemory_policy")
    if policy is not None and policy != POLICY:
        raise EvictionPolicyRefused(
            f"The server's maxmemory-policy is {policy}: when memory runs low it would evict keys, and workflows with "
            f"them. Set it to {POLICY}, there and in the server's configuration: {MEND_POLICY}"
        )
    return policy is not None


def _identify(fields: Mapping[str, str]) -> ServerInfo:
    run_id = fields.get("run_id", "")
    if version := fields.get("valkey_version"):
        return ServerInfo("valkey", version, run_id)
    version = fields.get("redis_version", "")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None:
        raise UnsupportedServer(
            "The server is neither Redis nor Valkey: INFO tells no version. Use Redis 7.0 or newer, or Valkey."
        )
    if (int(numbers[1]), int(numbers[2])) < OLDEST_REDIS:
        raise UnsupportedServer(f"The server is Redis {version}; Headrace needs Redis 7.0 or newer, or Valkey.")
    return ServerInfo("redis", version, run_id)


def _fields(reply: Reply) -> Mapping[str, str]:
    try:
        text: bytes = raise_error(reply)
    except ServerError as error:
        if "unknown command" not in str(error).lower():  # such as a missing password
            raise
        raise UnsupportedServer(f"The server refuses INFO: {error}. Use Redis 7.0 or newer, or Valkey.") from None
    lines = text.decode(errors="replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def _policy(reply: Reply) -> str | None:
    if isinstance(reply, ServerError) or not reply or len(reply) < 2:
        return None
    value: bytes = reply[1]
    return value.decode(errors="replace")
