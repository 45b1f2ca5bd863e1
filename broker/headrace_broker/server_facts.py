"""What a server says of itself that matters to Headrace. It may refuse INFO and CONFIG, as managed servers do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, cast

from .connection import Command, Reply
from .conversations import Conversation
from .errors import ServerError

_WRITES: Final = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")


@dataclass(frozen=True)
class ServerFacts:
    """None is what the server does not tell; `refused` says which commands it refuses, and how."""

    kind: str | None
    version: str | None
    refused: Mapping[str, str]
    append_only: bool | None
    fsync: str | None
    failed_writes: tuple[str, ...]
    """Fields of INFO persistence that do not say ok."""
    loading: bool
    eviction: str | None
    used_memory: int | None
    max_memory: int | None
    """0: no limit."""


def read_server() -> Conversation[ServerFacts]:
    """Raises nothing but what a lost connection raises."""
    asked: list[Command] = [
        *(("INFO", "server"), ("INFO", "persistence"), ("INFO", "memory")),
        *(("CONFIG", "GET", "appendonly"), ("CONFIG", "GET", "appendfsync"), ("CONFIG", "GET", "maxmemory-policy")),
    ]
    replies = yield asked
    refused = {
        str(command[0]): str(reply)
        for command, reply in zip(asked, replies, strict=True)
        if isinstance(reply, ServerError)
    }
    info = {name: value for reply in replies[:3] for name, value in _info(reply)}
    append_only, fsync, eviction = (_setting(reply) for reply in replies[3:])
    kind = "valkey" if "valkey_version" in info else "redis" if "redis_version" in info else None
    on = info.get("aof_enabled") or {"yes": "1", "no": "0"}.get(append_only or "")
    return ServerFacts(
        kind,
        info.get("valkey_version") or info.get("redis_version"),
        refused,
        None if on is None else on == "1",
        fsync,
        tuple(name for name in _WRITES if info.get(name, "ok") != "ok"),
        info.get("loading") == "1",
        eviction or info.get("maxmemory_policy"),
        _number(info.get("used_memory")),
        _number(info.get("maxmemory")),
    )


def _info(reply: Reply) -> Iterator[tuple[str, str]]:
    if isinstance(reply, bytes):
        for line in reply.decode(errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon:
                yield name, value


def _setting(reply: Reply) -> str | None:
    if isinstance(reply, ServerError) or not reply or len(reply) < 2:
        return None
    return cast(bytes, reply[1]).decode(errors="replace")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
