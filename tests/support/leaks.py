"""The key-leak check: no test may leave a key that nothing will ever remove (DESIGN 4, invariant 8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from headrace_broker.connection import Command, Link, Reply, Server, call, exchange, raise_error
from headrace_broker.keys import KeyKind, classify

_CHUNK = 500


@dataclass(frozen=True)
class Found:
    """A key of the namespace, and what tells whether it has an end."""

    name: str
    kind: KeyKind | None
    ttl_ms: int
    """-1 for none, -2 if it is gone by now: the answer of PTTL."""


def check_namespace(url: str, namespace: str, allowed: frozenset[str] = frozenset()) -> list[str]:
    """Says what is wrong with the keys that a namespace holds, then removes them all.

    `allowed` names kinds (`KeyKind.name`) that the test leaves on purpose, for instance because it wrote part
    of an instance by hand.
    """
    link = Server(url).connect()
    try:
        names = _scan(link, namespace)
        found = _look_up(link, names)
        complaints = leaks(found, _held_incarnations(link, found), allowed)
        if "value" not in allowed:
            complaints += orphans(link, found)
        for chunk in _chunks(names):
            call(link, "DEL", *chunk)
    finally:
        link.close()
    return complaints


def leaks(found: list[Found], incarnations: frozenset[str], allowed: frozenset[str] = frozenset()) -> list[str]:
    """One sentence for each key without an end; `incarnations` are those that a header holds."""
    return [
        complaint
        for key in found
        if key.ttl_ms != -2
        and (key.kind is None or key.kind.name not in allowed)
        and (complaint := _complaint(key, incarnations)) is not None
    ]


def orphans(link: Link, found: list[Found]) -> list[str]:
    """One sentence for each large value without a TTL that nothing names any more, though its instance is there:
    neither an output, nor a parked event, nor one that waits in an inbox."""
    lasting = [key for key in found if key.kind is not None and key.kind.name == "value" and key.ttl_ms == -1]
    if not lasting:
        return []
    headed = _held_incarnations(link, [key for key in found if key.kind and key.kind.name in ("header", "archive")])
    named = _texts_that_name(link, found)
    return [
        f"{key.name} is a large value without a TTL, and nothing names it"
        for key in lasting
        if key.kind is not None and key.kind.incarnation in headed and not any(key.name.encode() in t for t in named)
    ]


def _texts_that_name(link: Link, found: list[Found]) -> list[bytes]:
    commands: list[Command] = []
    for key in found:
        kind = key.kind.name if key.kind is not None else ""
        if kind == "outputs":
            commands.append(("HVALS", key.name))
        elif kind == "parked":
            commands.append(("LRANGE", key.name, 0, -1))
        elif kind in ("events", "starts"):
            commands.append(("XRANGE", key.name, "-", "+"))
    return list(_flat(_pipeline(link, commands)))


def _flat(reply: object) -> Iterator[bytes]:
    if isinstance(reply, list):
        for part in cast("list[object]", reply):
            yield from _flat(part)
    elif isinstance(reply, bytes):
        yield reply


def _complaint(key: Found, incarnations: frozenset[str]) -> str | None:
    if key.kind is None:
        return f"{key.name} is no key that headrace_broker.keys knows"
    if key.kind.end == "ttl" and key.ttl_ms == -1:
        return f"{key.name} is a {key.kind.name} key and must have a TTL"
    incarnation = key.kind.incarnation
    # A value that no commit has adopted yet has its TTL for an end.
    ends_itself = key.kind.name == "value" and key.ttl_ms >= 0
    if incarnation is not None and incarnation not in incarnations and not ends_itself:
        return f"{key.name} is a {key.kind.name} key of incarnation {incarnation}, which no header holds"
    return None


def _scan(link: Link, namespace: str) -> list[str]:
    names: set[str] = set()
    for pattern in (f"{namespace}:*", f"{{{namespace}:*"):
        cursor = b"0"
        while True:
            cursor, page = call(link, "SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            names.update(name.decode(errors="backslashreplace") for name in page)
            if int(cursor) == 0:
                break
    return sorted(names)


def _look_up(link: Link, names: list[str]) -> list[Found]:
    ttls = _pipeline(link, [("PTTL", name) for name in names])
    return [Found(name, classify(name), ttl) for name, ttl in zip(names, ttls, strict=True)]


def _held_incarnations(link: Link, found: list[Found]) -> frozenset[str]:
    """Of live headers, which carry it as a field, of archived ones, and of deleted ones that the sweeper has yet to
    free."""
    headers = [key.name for key in found if key.kind is not None and key.kind.name in ("header", "archive")]
    held = _pipeline(link, [("HGET", name, "inc") for name in headers])
    purging = [key.name for key in found if key.kind is not None and key.kind.name == "purge"]
    for members in _pipeline(link, [("SMEMBERS", name) for name in purging]):
        held += members
    return frozenset(incarnation.decode() for incarnation in held if incarnation is not None)


def _pipeline(link: Link, commands: list[Command]) -> list[Reply]:
    replies: list[Reply] = []
    for start in range(0, len(commands), _CHUNK):
        replies += [raise_error(reply) for reply in exchange(link, commands[start : start + _CHUNK])]
    return replies


def _chunks(names: list[str]) -> list[list[str]]:
    return [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
