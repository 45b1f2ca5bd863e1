"""What horses and rq workers tell their bridge, over one pipe for each rq worker: a line for a word.

| word | written by | meaning |
| --- | --- | --- |
| `Up` | rq worker | the targets are loaded, it takes jobs |
| `Begun` | horse | code of the task is about to run |
| `Ending` | horse | it has ended, and is about to be settled: nothing is left to stop |
| `Settled` | horse | the server has its result |
| `Died` | rq worker | the horse of this job died before its time, with this wait status |

A line is shorter than PIPE_BUF, so lines of several processes never mix. A stock `rq worker` that somebody else started
has no such pipe; the bridge then learns the same from RQ's keys, a little later.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

PIPE: Final = "HEADRACE_RQ_PIPE"
"""In the environment of an rq worker: the number of the pipe's descriptor."""


class Up(NamedTuple):
    pass


class Begun(NamedTuple):
    dispatch: str


class Ending(NamedTuple):
    dispatch: str


class Settled(NamedTuple):
    dispatch: str


class Died(NamedTuple):
    dispatch: str
    status: int


Word = Up | Begun | Ending | Settled | Died


def encode(word: Word) -> bytes:
    return " ".join([type(word).__name__, *(str(field) for field in word)]).encode() + b"\n"


def decode(line: bytes) -> Word | None:
    """The word in a line; None for what is none, such as the print of a task that guessed the descriptor."""
    match line.decode(errors="replace").split(" "):
        case ["Up"]:
            return Up()
        case ["Died", dispatch, status] if status.lstrip("-").isdigit():
            return Died(dispatch, int(status))
        case ["Begun", dispatch]:
            return Begun(dispatch)
        case ["Ending", dispatch]:
            return Ending(dispatch)
        case ["Settled", dispatch]:
            return Settled(dispatch)
        case _:
            return None


def tell(word: Word) -> None:
    """Writes to this process's pipe, if it has one. Raises `OSError` when the bridge is gone."""
    if (number := os.environ.get(PIPE)) is not None:
        os.write(int(number), encode(word))
