"""Definitions that nothing refers to: not stored for a week, current for no flow, and no instance has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headrace_broker import scripting
from headrace_broker.conversations import Conversation, ask
from headrace_broker.keys import Keys
from headrace_broker.registry import list_flows

KEEP_MS: Final = 7 * 24 * 3_600_000
"""After it was last stored: workers store at their start, clients what they use again each day."""
AT_ONCE: Final = 64


def sweep_definitions(keys: Keys, partitions: int, now: int) -> Conversation[int]:
    """How many were deleted. Those in use are looked at again after another week."""
    bounds = ("-inf", now - KEEP_MS)
    (reply,) = yield from ask(("ZRANGEBYSCORE", keys.definitions, *bounds, "WITHSCORES", "LIMIT", 0, AT_ONCE))
    old = [(digest.decode(), score) for digest, score in zip(reply[::2], reply[1::2], strict=True)]
    if not old:
        return 0
    used = yield from _used(keys, partitions, [digest for digest, _ in old])
    if used:
        again = [part for digest in sorted(used) for part in (now, digest)]
        yield from ask(("ZADD", keys.definitions, "XX", "GT", *again))
    deleted = 0
    for digest, score in old:
        if digest not in used:
            deleted += yield from _delete(keys, digest, score)
    return deleted


def _used(keys: Keys, partitions: int, digests: Sequence[str]) -> Conversation[set[str]]:
    used = {flow.digest for flow in (yield from list_flows(keys))} & set(digests)
    replies = yield from ask(*(("HMGET", keys.partition(number).counted, *digests) for number in range(partitions)))
    for counts in replies:
        used |= {digest for digest, count in zip(digests, counts, strict=True) if count is not None}
    return used


def _delete(keys: Keys, digest: str, score: bytes) -> Conversation[int]:
    """Deletes it, unless somebody stored it since its score was read: then it is put back."""
    (data,) = yield from ask(("GET", keys.definition(digest)))
    yield from ask(("UNLINK", keys.definition(digest)))
    gone = yield from scripting.call(scripting.load("unlist"), [keys.definitions], [digest, score])
    if gone:
        return 1
    if data is not None:
        yield from ask(("SET", keys.definition(digest), data, "NX"))
    return 0
