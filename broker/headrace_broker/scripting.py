"""The Lua scripts: loaded from the package, called by hash, sent in full only to a server that does not know them.

A script says in its header what its KEYS and ARGV are and what comes back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

from .connection import Argument, Command, Reply, raise_error
from .conversations import Conversation
from .errors import ServerError


@dataclass(frozen=True)
class Script:
    """A script of `headrace_broker/scripts`, by its file name without `.lua`."""

    name: str
    source: str

    @cached_property
    def digest(self) -> str:
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], arguments: Sequence[Argument]) -> Command:
        """By hash: answered by an error that `is_unknown` knows, and nothing done, where it was never loaded."""
        return ("EVALSHA", self.digest, len(keys), *keys, *arguments)

    def full_command(self, keys: Sequence[str], arguments: Sequence[Argument]) -> Command:
        """With its source, which the server then knows by hash too."""
        return ("EVAL", self.source, len(keys), *keys, *arguments)


@cache
def load(name: str) -> Script:
    return Script(name, files("headrace_broker").joinpath("scripts", f"{name}.lua").read_text("utf-8"))


def is_unknown(reply: Reply) -> bool:
    """True for the answer to the hash of a script that the server does not have (redis-py drops the code)."""
    return isinstance(reply, ServerError) and "No matching script" in str(reply)


def call(script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Conversation[Reply]:
    """What the script returns. Raises `ServerError`."""
    (reply,) = yield from call_each(script, [(keys, arguments)])
    return reply


def call_each(script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Argument]]]) -> Conversation[list[Reply]]:
    """What each call of the script, with its (keys, arguments), returns; all in one round trip.

    Raises `ServerError` for the first error.
    """
    replies = yield [script.command(*call) for call in calls]
    unknown = [place for place, reply in enumerate(replies) if is_unknown(reply)]
    if unknown:
        again = yield [script.full_command(*calls[place]) for place in unknown]
        for place, reply in zip(unknown, again, strict=True):
            replies[place] = reply
    return [raise_error(reply) for reply in replies]
