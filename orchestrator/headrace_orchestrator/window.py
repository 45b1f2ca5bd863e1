"""How many new instances a partition may take on: work in progress comes before new work (DESIGN 5).

Per task stream, what was dispatched and is not settled is the stream's length, which the partition asks for now and
then, plus what it dispatched and minus what it saw settled since. Streams that no live worker serves do not count, so
they block nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Set


class StartWindow:
    """`limit` unsettled dispatches per stream; at least `floor` starts a second, whatever the backlog."""

    def __init__(self, limit: int, floor: int) -> None:
        self._limit = limit
        self._floor = floor
        self._unsettled: dict[str, int] = {}
        self._live: Set[str] = frozenset()
        self._allowance = float(floor)
        self._counted_at: float | None = None

    @property
    def streams(self) -> Set[str]:
        """Streams this partition has dispatched to."""
        return self._unsettled.keys()

    def dispatched(self, stream: str) -> None:
        self._unsettled[stream] = self._unsettled.get(stream, 0) + 1

    def settled(self, stream: str) -> None:
        self._unsettled[stream] = max(0, self._unsettled.get(stream, 0) - 1)

    def measured(self, lengths: Mapping[str, int], live: Set[str]) -> None:
        """Takes the streams' real lengths, and which of them a live worker serves."""
        self._unsettled.update(lengths)
        self._live = live

    def room(self, now: float, batch: int) -> int:
        """How many starts may be read now, at most `batch`. `now` in seconds of a monotonic clock."""
        if self._counted_at is not None:
            gained = (now - self._counted_at) * self._floor
            self._allowance = min(float(self._floor), self._allowance + gained)
        self._counted_at = now
        fullest = max((count for stream, count in self._unsettled.items() if stream in self._live), default=0)
        return min(batch, max(self._limit - fullest, int(self._allowance)))

    def took(self, starts: int) -> None:
        self._allowance = max(0.0, self._allowance - starts)
