"""One complete read of the owned partitions' inboxes, timers and leases, in one round trip."""

from __future__ import annotations

from collections.abc import Sequence

from headrace_broker.clock import ServerClock
from headrace_broker.connection import Command, Link, raise_error
from headrace_broker.ids import entry_key

from .holding import Holding
from .inbox import Item, entries, read_events, read_signals, read_starts, read_timers

TIMERS_AT_ONCE = 256


class Read:
    """One pipelined, non-blocking read of everything that may be due, and how to take its replies apart.

    TIME stands before XREAD: what the read returns is complete before that millisecond, so a timer due by then may
    fire. If a read is full, the inbox is known up to its last entry only. Leases were judged before that, so a result
    that came in time is in the same read, and goes first.
    """

    def __init__(self, signals: str, owned: Sequence[Holding], batch: int, now_ms: int, now: float) -> None:
        self._signals = signals
        self._owned = owned
        self._batch = batch
        self._now = now
        self.commands: list[Command] = []
        self._judged: list[tuple[Holding, list[str], int]] = []
        for holding in owned:
            streams = holding.streams_to_judge(now)
            if streams:
                self._judged.append((holding, streams, len(self.commands)))
                self.commands += holding.judge.commands(holding.live.keys, streams)
        self._time = len(self.commands)
        self.commands.append(("TIME",))
        streams_read = [signals, *(holding.live.keys.events for holding in owned)]
        from_ids = [earliest([h.live.cursors["signals"] for h in owned]), *(h.live.cursors["events"] for h in owned)]
        self._events = len(self.commands)
        self.commands.append(("XREAD", "COUNT", batch, "STREAMS", *streams_read, *from_ids))
        self._starts: list[tuple[Holding, int]] = []
        self._timers: list[tuple[Holding, int, bool]] = []
        for holding in owned:
            live = holding.live
            room = live.window.room(now, batch)
            if room:
                self._starts.append((holding, len(self.commands)))
                self.commands.append(("XREAD", "COUNT", room, "STREAMS", live.keys.starts, live.cursors["starts"]))
            if holding.timers_due(now_ms, now):
                self._timers.append((holding, len(self.commands), True))
                limit = ("LIMIT", 0, TIMERS_AT_ONCE)
                self.commands.append(("ZRANGEBYSCORE", live.keys.timers, "-inf", now_ms, "WITHSCORES", *limit))
            elif live.refresh_due:
                self._timers.append((holding, len(self.commands), False))
                self.commands.append(("ZRANGE", live.keys.timers, 0, 0, "WITHSCORES"))

    def items(self, reader: Link, replies: list[object], clock: ServerClock, partitions: int) -> dict[int, list[Item]]:
        """Per partition: events and signals, then losses and timers that no unread event can overtake, then starts."""
        server_now = clock.learn(raise_error(replies[self._time]))
        by_stream = dict(entries(raise_error(replies[self._events])))
        signals = by_stream.get(self._signals.encode(), [])
        work: dict[int, list[Item]] = {}
        horizons: dict[int, int] = {}
        complete: set[int] = set()
        for holding in self._owned:
            rows = by_stream.get(holding.live.keys.events.encode(), [])
            work[holding.number] = [
                *read_events(rows, holding.live.keys),
                *own_signals(signals, holding, partitions),
            ]
            if len(rows) < self._batch and len(signals) < self._batch:
                complete.add(holding.number)
            horizons[holding.number] = min(
                _horizon(rows, self._batch, server_now), _horizon(signals, self._batch, server_now)
            )
        for holding, streams, at in self._judged:
            # Contact may have been lost since the read began: then what looks idle in its reply may not be.
            if holding.number in complete and holding.judge.may_judge(self._now):
                asked = replies[at : at + len(streams)]
                work[holding.number] += holding.judge.items(reader, holding.live.keys, streams, asked, self._now)
        for holding in self._owned:
            if holding.number in complete:
                work[holding.number] += holding.lost()
        for holding, at, due in self._timers:
            found_timers = holding.timers(raise_error(replies[at]), horizons[holding.number], due=due)
            work[holding.number] += read_timers(found_timers)
        for holding, at in self._starts:
            rows = dict(entries(raise_error(replies[at]))).get(holding.live.keys.starts.encode(), [])
            holding.live.window.took(len(rows))
            work[holding.number] += read_starts(rows, holding.live.keys)
        return work


def own_signals(rows: Sequence[tuple[str, dict[bytes, bytes]]], holding: Holding, partitions: int) -> list[Item]:
    """Raw signals past this partition's own cursor; partitions share one read of the stream."""
    cursor = entry_key(holding.live.cursors["signals"])
    return read_signals([row for row in rows if entry_key(row[0]) > cursor], holding.number, partitions)


def _horizon(rows: Sequence[tuple[str, object]], batch: int, server_now: int) -> int:
    """Up to which ms the inbox is known. In the server's present one, and in a full read's last, more may come."""
    return (server_now if len(rows) < batch else min(server_now, entry_key(rows[-1][0])[0])) - 1


def earliest(ids: Sequence[str]) -> str:
    return min(ids, key=entry_key)
