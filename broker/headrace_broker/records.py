"""The engine's state as it lies in Redis: fields of the hash `s:<inc>`, each a small MessagePack array.

| field | record |
| --- | --- |
| `c` | `Counters` |
| `t<id>` | `Token` |
| `f<id>` | `Frame` |
| `q.<name>` | `SignalQueue` |
| `w<n>.<name>` | id of the n-th token that waits for that signal |

Only what changed is written (invariant 6). Appended fields are allowed, as in `messages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from . import wire
from .errors import MessageError

COUNTERS: Final = "c"

DISPATCHED: Final = 1
BACKOFF: Final = 2
SLEEPING: Final = 3
AWAITING: Final = 4
FAILED: Final = 5
STOPPED: Final = 6
"""A sibling that a failure stopped: `retry` will give it a fresh dispatch, like the failed one."""


class Counters(NamedTuple):
    """The next numbers of this instance's tokens, frames, steps and timers, and how many tokens are dispatched."""

    tokens: int = 1
    frames: int = 1
    steps: int = 1
    timers: int = 1
    active: int = 0


class Token(NamedTuple):
    """A position the instance holds. `slot` is its node's input; `dispatch` is empty unless dispatched.

    `timer` 0 is none; `due` (ms) goes with it. `losses` counts lost deliveries of this step, `returns` how often a
    worker did not know the task. `place` is the token's place among those that wait for a signal.
    """

    node: int
    frame: int
    branch: int
    slot: str
    phase: int
    step: int
    dispatch: str = ""
    attempt: int = 0
    losses: int = 0
    timer: int = 0
    due: int = 0
    returns: int = 0
    place: int = 0


class Frame(NamedTuple):
    """Branches that run in parallel. `frame` and `branch` say where the fork itself stands; 0 is the top level."""

    node: int
    frame: int
    branch: int
    remaining: int


class SignalQueue(NamedTuple):
    """Of one signal name: payloads `[first, next)` are buffered in slots, waiters `[first_waiter, next_waiter)` wait.

    At most one of the two ranges is populated; waiters that gave up leave holes.
    """

    first: int = 0
    next: int = 0
    first_waiter: int = 0
    next_waiter: int = 0


Record = Counters | Token | Frame | SignalQueue | int


def token_field(token: int) -> str:
    return f"t{token}"


def frame_field(frame: int) -> str:
    return f"f{frame}"


def queue_field(signal: str) -> str:
    return f"q.{signal}"


def waiter_field(number: int, signal: str) -> str:
    return f"w{number}.{signal}"


def branch_slot(frame: int, branch: int) -> str:
    """Where a branch's output is found by its frame: an alias, so that a join reads no state of its branches."""
    return f"j{frame}.{branch}"


def signal_slot(number: int, signal: str) -> str:
    return f"g{number}.{signal}"


def pack(record: Record) -> bytes:
    return wire.pack(record)


_KINDS: Final[Mapping[str, type[Counters] | type[Token] | type[Frame] | type[SignalQueue]]] = {
    "c": Counters,
    "t": Token,
    "f": Frame,
    "q": SignalQueue,
}
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    letter: tuple(str if name in ("slot", "dispatch") else int for name in kind._fields)
    for letter, kind in _KINDS.items()
}


def unpack(field: str, data: bytes) -> Record:
    """Raises `MessageError` for a field or bytes this version cannot read."""
    value: Any = wire.unpack(data)
    letter = field[:1]
    if letter == "w" and type(value) is int:
        return value
    if letter not in _KINDS or (letter in "tf" and not field[1:].isdecimal()):
        raise MessageError(f"The state field {field!r} is none of this version's records.")
    kind = _KINDS[letter]
    parts = wire.fields(value, f"the state field {field!r}", *_TYPES[letter])
    return kind(*parts[: len(kind._fields)])


def unpack_state(reply: list[bytes]) -> dict[str, Record]:
    """The records in the reply of HGETALL. Raises `MessageError`."""
    names = [name.decode() for name in reply[::2]]
    return {name: unpack(name, data) for name, data in zip(names, reply[1::2], strict=True)}
