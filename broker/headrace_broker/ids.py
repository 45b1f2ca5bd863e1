"""Identifiers: what a user may choose, and what Headrace makes."""

from __future__ import annotations

import re
import secrets
from typing import Final, NamedTuple

from .errors import InvalidInstanceId, MessageError

INSTANCE_ID_LIMIT = 256
"""Bytes of an instance id in UTF-8 (DESIGN 6)."""

_NUMBER = "(0|[1-9][0-9]{0,19})"
_LARGEST: Final = 2**64 - 1
_DISPATCH_ID = re.compile(f"{_NUMBER}-([A-Za-z0-9_]+)-{_NUMBER}-{_NUMBER}")


def check_instance_id(instance: object) -> str:
    """The id itself, if a user may use it.

    Raises `InvalidInstanceId` unless it is a string of 1 to 256 bytes of UTF-8 in which every character is printable.
    """
    if not isinstance(instance, str):
        raise InvalidInstanceId(f"An instance id is a string; got {type(instance).__name__}.")
    try:
        size = len(instance.encode())
    except UnicodeEncodeError:
        raise InvalidInstanceId(f"An instance id is valid Unicode; got {instance!r}.") from None
    if not 1 <= size <= INSTANCE_ID_LIMIT:
        raise InvalidInstanceId(
            f"An instance id has 1 to {INSTANCE_ID_LIMIT} bytes; got {size}. Use a shorter id, such as a hash."
        )
    if not instance.isprintable():
        raise InvalidInstanceId(f"An instance id has no control or invisible characters; got {instance!r}.")
    return instance


def new_incarnation() -> str:
    """Names one use of an instance id: 72 random bits, 12 characters of `[A-Za-z0-9_-]`."""
    return secrets.token_urlsafe(9)


def entry_key(id: str) -> tuple[int, int]:
    """What entry ids are ordered by: milliseconds, then number."""
    milliseconds, _, number = id.partition("-")
    return int(milliseconds), int(number or 0)


def new_request_id() -> str:
    """Names one request, so that its repetition gets the same answer: 96 random bits."""
    return secrets.token_urlsafe(12)


def entry_of(dispatch: str) -> str:
    """The id of the task entry of a dispatch id that we made or checked before: what `DispatchId.entry` says."""
    return dispatch.split("-", 2)[2]


class DispatchId(NamedTuple):
    """Names one hand-out of a task, unique for ever: `<p>-<token, hex>-<commit>-<n>` (DESIGN 5).

    Its entry in the task stream has the explicit id `<commit>-<n>`, so any later commit can take it out.
    """

    partition: int
    token: str
    commit: int
    number: int

    def __str__(self) -> str:
        return f"{self.partition}-{self.token}-{self.commit}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> DispatchId:
        """Raises `MessageError` for anything that is no dispatch id."""
        parsed = _DISPATCH_ID.fullmatch(text)
        if parsed is None:
            raise MessageError(f"A dispatch id is <p>-<token>-<commit>-<n>; got {text[:80]!r}.")
        partition, token, commit, number = parsed.groups()
        if int(commit) > _LARGEST or int(number) > _LARGEST:
            raise MessageError(f"A dispatch id names an entry of a stream; got {text[:80]!r}.")
        return cls(int(partition), token, int(commit), int(number))

    @property
    def entry(self) -> str:
        """The id of its entry in the task stream."""
        return f"{self.commit}-{self.number}"
