"""Prometheus metrics of an orchestrator. Bounded labels only: flows, queues, outcomes; never ids (DESIGN 9).

Counted after the commit, from the history entries it wrote, so that a batch done twice is counted once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from headrace_broker import history

from .engine.model import Draft
from .inbox import Item

_FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 3600.0)
_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 512)


CountedEvents = dict[tuple[Counter, tuple[str, ...]], int]
"""Counters with their labels, and by how much they grow: added up per commit, as each `labels` call costs."""


class Metrics:
    """What one orchestrator counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._steps: dict[str, Histogram] = {}
        self.instances_started = Counter(
            "headrace_instances_started", "Instances whose first step was entered.", ["flow"], registry=registry
        )
        self.instances_ended = Counter(
            "headrace_instances_ended", "Instances that ended.", ["flow", "status"], registry=registry
        )
        self.attempts = Counter("headrace_attempts", "Attempts that ended.", ["flow", "outcome"], registry=registry)
        self.redeliveries = Counter(
            "headrace_redeliveries", "Deliveries made anew, by cause.", ["cause"], registry=registry
        )
        self.stale_results = Counter(
            "headrace_stale_results",
            "Results, signals and starts that no longer counted.",
            ["partition"],
            registry=registry,
        )
        self.quarantined = Counter(
            "headrace_quarantined", "Entries put into quarantine.", ["source"], registry=registry
        )
        self.step_seconds = Histogram(
            "headrace_step_seconds",
            "A task's run time, as its worker measured it.",
            ["flow"],
            buckets=_SLOW,
            registry=registry,
        )
        self.step_latency_seconds = Histogram(
            "headrace_step_latency_seconds",
            "From the commit that dispatched an attempt to the one that took its completion.",
            buckets=_SLOW,
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "headrace_commit_seconds", "From sending a commit to its reply.", buckets=_FAST, registry=registry
        )
        self.commit_events = Histogram(
            "headrace_commit_events", "Events applied by one commit.", buckets=_SIZES, registry=registry
        )
        self.timer_lateness_seconds = Histogram(
            "headrace_timer_lateness_seconds", "How late timers fired.", buckets=_FAST, registry=registry
        )
        self.queue_backlog = Gauge(
            "headrace_queue_backlog", "Tasks handed out and not settled.", ["queue", "partition"], registry=registry
        )
        self.partitions_owned = Gauge(
            "headrace_partitions_owned", "Partitions this orchestrator owns.", registry=registry
        )
        self.damaged = Counter(
            "headrace_damaged_commits",
            "Commits and acquisitions that met data a strange hand had written.",
            registry=registry,
        )
        self.instances_swept = Counter(
            "headrace_instances_swept",
            "Ended instances that were deleted, by what they went for.",
            ["flow", "reason"],
            registry=registry,
        )
        self.definitions_swept = Counter(
            "headrace_definitions_swept", "Definitions deleted because nothing referred to them.", registry=registry
        )
        self.sweep_backlog = Gauge(
            "headrace_sweep_backlog", "Ended instances that are due and not yet deleted.", registry=registry
        )
        self.out_of_memory = Counter(
            "headrace_out_of_memory", "Commits that the server refused for lack of memory.", registry=registry
        )
        self.cursors_moved = Counter(
            "headrace_signal_cursors_moved",
            "Cursors of raw signals that lay above the stream's end, and were moved.",
            registry=registry,
        )
        self.fenced = Counter("headrace_fenced_commits", "Commits that the fence refused.", registry=registry)

    def stale(self, partition: int, count: int = 1) -> None:
        self.stale_results.labels(str(partition)).inc(count)

    def committed(self, partition: int, drafts: Sequence[Draft], items: Sequence[Item], seconds: float) -> None:
        """Takes over what a commit did. `seconds` it took."""
        self.commit_seconds.observe(seconds)
        self.commit_events.observe(len(items))
        for item in items:
            if item.reason is not None:
                self.quarantined.labels(item.source).inc()
            if item.stale:
                self.stale(partition)
        counted: CountedEvents = {}
        for draft in drafts:
            if draft.stale:
                self.stale(partition, draft.stale)
            flow = draft.instance.flow
            for entry in draft.history:
                self._count(flow, entry, counted)
        for (counter, labels), count in counted.items():
            counter.labels(*labels).inc(count)

    def _count(self, flow: str, entry: tuple[object, ...], counted: CountedEvents) -> None:
        code = entry[1]
        if code == history.DISPATCHED:
            return
        if code == history.COMPLETED:
            self._observe_step(flow, entry)
            _add(counted, self.attempts, flow, "completed")
        elif code == history.FAILED:
            _add(counted, self.attempts, flow, str(entry[7]))
        elif code == history.REDELIVERED:
            _add(counted, self.redeliveries, str(entry[8]))
        elif code == history.STARTED:
            _add(counted, self.instances_started, flow)
        elif code == history.ENDED:
            _add(counted, self.instances_ended, flow, str(entry[2]))

    def _observe_step(self, flow: str, entry: tuple[object, ...]) -> None:
        histogram = self._steps.get(flow)
        if histogram is None:
            histogram = self._steps[flow] = self.step_seconds.labels(flow)
        duration = entry[8]
        if isinstance(duration, int):
            histogram.observe(duration / 1000)

    def backlog(self, partition: int, lengths: Mapping[str, int]) -> None:
        for stream, length in lengths.items():
            self.queue_backlog.labels(stream, str(partition)).set(length)


def _add(counted: CountedEvents, counter: Counter, *labels: str) -> None:
    counted[counter, labels] = counted.get((counter, labels), 0) + 1
