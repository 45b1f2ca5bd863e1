"""What is due. Pure: from a flow's rule, and how many ended instances each partition keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace_broker.retention import Rule

ASKED: Final = 0
"""The score, in place of an end, of an instance that somebody asked to be deleted."""


class Sizes(NamedTuple):
    """How many ended instances one partition keeps of a flow."""

    completed: int
    failed: int


class Due(NamedTuple):
    """What goes of one index: all that ended by `until` (ms), and the `over` oldest whatever their age."""

    until: int
    over: int


class DueOf(NamedTuple):
    """What goes of one partition and flow."""

    completed: Due
    failed: Due


def due(rule: Rule, sizes: Sequence[Sizes], now: int) -> list[DueOf]:
    """By partition. The count is over all of them, and takes completed instances before failed ones."""
    completed = [size.completed for size in sizes]
    failed = [size.failed for size in sizes]
    excess = 0 if rule.count is None else max(0, sum(completed) + sum(failed) - rule.count)
    from_completed = min(excess, sum(completed))
    over_completed = apportion(from_completed, completed)
    over_failed = apportion(excess - from_completed, failed)
    return [
        DueOf(Due(_until(rule.completed_ms, now), first), Due(_until(rule.failed_ms, now), second))
        for first, second in zip(over_completed, over_failed, strict=True)
    ]


def apportion(amount: int, sizes: Sequence[int]) -> list[int]:
    """Shares of `amount`, at most the sum of `sizes`, in proportion to them; what is left goes by largest remainder.

    The same for everybody who knows the same sizes, so that owners which do not talk remove no more than the excess.
    """
    total = sum(sizes)
    if not total:
        return [0] * len(sizes)
    shares = [amount * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda place: (-(amount * sizes[place] % total), place))
    for place in by_remainder[: amount - sum(shares)]:
        shares[place] += 1
    return shares


def _until(keep_ms: int | None, now: int) -> int:
    return ASKED if keep_ms is None else max(ASKED, now - keep_ms)


def reason(end: int, until: int) -> str:
    """Why an instance with that score goes."""
    if end == ASKED:
        return "asked"
    return "age" if end <= until else "count"
