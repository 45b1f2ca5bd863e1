"""What `headrace doctor` makes of the facts: each check is a pure function from facts to findings, in one table.

A finding says what it means and what mends it. Its `code` is stable; its text may change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Final, Literal

from headrace_broker.checks import MEND_POLICY, OLDEST_REDIS, POLICY
from headrace_broker.durations import format_duration
from headrace_broker.facts import Facts, Inbox, PartitionFacts
from headrace_broker.keys import queue_of

Severity = Literal["error", "warning"]

LAG_MS: Final = 30_000
"""An entry that waits in an inbox for longer is told."""
MEMORY_FULL: Final = 0.85
"""Of `maxmemory`: above, starts are refused (DESIGN 8)."""
MEMORY_HIGH: Final = 0.70
CLOCK_OFFSET_MS: Final = 1000
_LISTED: Final = 5


@dataclass(frozen=True)
class Finding:
    """`about` names what it is about: partitions, queues, tasks, instances."""

    code: str
    severity: Severity
    means: str
    mend: str
    about: tuple[str, ...] = ()


Check = Callable[[Facts], Iterator[Finding]]


def server(facts: Facts) -> Iterator[Finding]:
    found = facts.server
    unknown = None in (found.kind, found.append_only, found.eviction, found.used_memory)
    if found.refused and unknown:
        commands = ", ".join(sorted(found.refused))
        yield Finding(
            "server_refuses",
            "warning",
            f"The server refuses {commands}, so some of what is checked here is not known.",
            f"Allow them to this user, or look at the server's own console: persistence on, maxmemory-policy {POLICY}.",
        )
    elif not found.refused and found.kind is None:
        yield Finding(
            "server_unknown", "error", "The server is neither Redis nor Valkey.", "Use Redis 7.0 or newer, or Valkey."
        )
    if found.kind == "redis" and found.version and _version(found.version) < OLDEST_REDIS:
        yield Finding(
            "server_too_old", "error", f"The server is Redis {found.version}.", "Use Redis 7.0 or newer, or Valkey."
        )
    if found.loading:
        yield Finding("server_loading", "error", "The server is still loading its data.", "Wait until it is done.")


def persistence(facts: Facts) -> Iterator[Finding]:
    found = facts.server
    if found.append_only is False:
        yield Finding(
            "persistence_off",
            "error",
            "The append-only file is off: a restart of the server loses what was accepted since its last snapshot.",
            "redis-cli CONFIG SET appendonly yes, and `appendonly yes` in the server's configuration",
        )
    if found.append_only and found.fsync == "no":
        yield Finding(
            "fsync_off",
            "warning",
            "appendfsync is `no`: a crash of the machine loses up to half a minute of what was accepted.",
            "redis-cli CONFIG SET appendfsync everysec (or always)",
        )
    if found.failed_writes:
        yield Finding(
            "persistence_fails",
            "error",
            f"The server could not write its data: {', '.join(found.failed_writes)} is not ok.",
            "Look at the server's log and at the space on its disk.",
            found.failed_writes,
        )


def eviction(facts: Facts) -> Iterator[Finding]:
    policy = facts.server.eviction
    if policy is not None and policy != POLICY:
        yield Finding(
            "eviction_policy",
            "error",
            f"maxmemory-policy is {policy}: when memory runs low the server evicts keys, and workflows with them.",
            f"{MEND_POLICY}, and the same in the server's configuration",
        )


def memory(facts: Facts) -> Iterator[Finding]:
    used, limit = facts.server.used_memory, facts.server.max_memory
    if not used or not limit or used < limit * MEMORY_HIGH:
        return
    share = f"{used / limit:.0%} of its {limit / 1e6:,.0f} MB"
    mend = "Raise maxmemory (redis-cli CONFIG SET maxmemory …), or keep ended instances for a shorter time."
    if used >= limit * MEMORY_FULL:
        yield Finding(
            "memory_full", "error", f"The server uses {share}: at 100% starts and results are refused, and wait.", mend
        )
    else:
        yield Finding(
            "memory_high",
            "warning",
            f"The server uses {share}: at 100% starts and results are refused, and wait.",
            mend,
        )


def clock(facts: Facts, offset_ms: int) -> Iterator[Finding]:
    if abs(offset_ms) >= CLOCK_OFFSET_MS:
        way = "ahead of" if offset_ms > 0 else "behind"
        yield Finding(
            "clock_offset",
            "warning",
            f"This machine's clock is {format_duration(abs(offset_ms))} {way} the server's. Timers go by the server's; "
            "times that you give, such as of `delay_until`, by yours.",
            "Let both machines take their time from NTP: timedatectl set-ntp true",
        )


def namespace(facts: Facts) -> Iterator[Finding]:
    if facts.partitions is None:
        yield Finding(
            "namespace_missing",
            "warning",
            f"There is no namespace {facts.namespace!r} on this server: nothing has run here.",
            "Is it the right server and namespace (--url, --namespace)? Else: headrace orchestrator",
            (facts.namespace,),
        )
    problems = [*facts.problems, *(problem for part in facts.partitions or () for problem in part.problems)]
    if problems:
        yield Finding(
            "key_damaged",
            "error",
            "Keys are not what Headrace wrote: " + _listed(problems),
            "Look what wrote there; when nothing in it is needed, delete the key: redis-cli DEL KEY",
            tuple(problems),
        )


def owners(facts: Facts) -> Iterator[Finding]:
    parts = facts.partitions or ()
    if unowned := [part for part in parts if part.owner_ttl_ms is None]:
        yield Finding(
            "partition_without_owner",
            "error",
            f"Nobody works on {_partitions(unowned)} of {len(parts)}: the instances in there stand still.",
            "headrace orchestrator",
            _numbers(unowned),
        )
    if stuck := [part for part in parts if part.owner_ttl_ms == -1]:
        yield Finding(
            "owner_without_end",
            "error",
            f"The owner key of {_partitions(stuck)} never runs out, so nobody can take over.",
            "Something else wrote it. Delete it, and an orchestrator takes over: redis-cli DEL "
            + " ".join(f"'{{{facts.namespace}:{part.number}}}:owner'" for part in stuck[:_LISTED]),
            _numbers(stuck),
        )
    if repairing := [part for part in parts if part.repairing]:
        yield Finding(
            "partition_in_repair",
            "warning",
            f"A commit of {_partitions(repairing)} was damaged; its owner looks for what was lost.",
            "Wait; if it stays so, look into the orchestrator's log.",
            _numbers(repairing),
        )


def inboxes(facts: Facts) -> Iterator[Finding]:
    parts = facts.partitions or ()
    kinds: tuple[tuple[str, str, str, list[tuple[str, Inbox]]], ...] = (
        (
            "events_lag",
            "Results, signals and controls wait",
            "Is an orchestrator running, and is its machine busy? headrace orchestrator",
            [(str(part.number), part.events) for part in parts],
        ),
        (
            "starts_lag",
            "New instances wait to be begun, which they do while the queues are full",
            "More workers: headrace worker TARGET. Without an owner: headrace orchestrator",
            [(str(part.number), part.starts) for part in parts],
        ),
        (
            "outbox_lag",
            "Messages between partitions wait",
            "Is an orchestrator running? headrace orchestrator",
            [(str(part.number), part.outbox) for part in parts],
        ),
        (
            "signals_lag",
            "Raw signals wait, until all partitions have read them",
            "Every partition needs an owner: headrace orchestrator",
            [("signals", facts.signals)],
        ),
    )
    for code, what, mend, found in kinds:
        late = [(name, inbox) for name, inbox in found if _age_ms(facts, inbox) >= LAG_MS]
        if late:
            count = sum(inbox.length for _, inbox in late)
            age = format_duration(max(_age_ms(facts, inbox) for _, inbox in late))
            yield Finding(
                code, "warning", f"{what}: {count:,}, the oldest for {age}.", mend, tuple(name for name, _ in late)
            )


def queues(facts: Facts) -> Iterator[Finding]:
    served = {stream for worker in facts.workers for stream in worker.streams}
    dead = [queue for queue in facts.queues if queue.length and queue.stream not in served]
    if dead:
        listed = _listed([f"{_queue(queue.stream)} ({queue.length:,})" for queue in dead])
        yield Finding(
            "queue_without_worker",
            "error",
            f"Tasks wait in queues that no live worker serves: {listed}.",
            f"headrace worker TARGET --queues {queue_of(dead[0].stream)}",
            tuple(queue.stream for queue in dead),
        )
    wanted = {stream for flow in facts.flows for stream, _ in flow.calls}
    idle = sorted(wanted - served - {queue.stream for queue in dead})
    if idle:
        yield Finding(
            "queue_unserved",
            "warning",
            f"No live worker serves queues of registered flows: {_listed(map(_queue, idle))}. Nothing waits there yet.",
            f"headrace worker TARGET --queues {queue_of(idle[0])}",
            tuple(idle),
        )


def tasks(facts: Facts) -> Iterator[Finding]:
    """Tasks of queues that do have a worker, which however has not these."""
    served = {stream for worker in facts.workers for stream in worker.streams}
    known = {(stream, task) for worker in facts.workers for stream in worker.streams for task in worker.tasks}
    waiting = {(queue.stream, task) for queue in facts.queues for task in queue.tasks if queue.stream in served}
    if missing := sorted(waiting - known):
        yield Finding(
            "task_without_worker",
            "error",
            f"Tasks wait that no live worker has: {_calls(missing)}.",
            "Start a worker with the code that has them: headrace worker TARGET",
            tuple(task for _, task in missing),
        )
    wanted = {call for flow in facts.flows for call in flow.calls if call[0] in served}
    if unserved := sorted(wanted - known - waiting):
        yield Finding(
            "task_unserved",
            "warning",
            f"No live worker has tasks of registered flows: {_calls(unserved)}.",
            "Start a worker with the code that has them: headrace worker TARGET",
            tuple(task for _, task in unserved),
        )


def records(facts: Facts) -> Iterator[Finding]:
    if broken := [flow for flow in facts.flows if flow.problem is not None]:
        yield Finding(
            "flow_unreadable",
            "error",
            "Flows cannot be started by name: " + _listed([f"{flow.name}: {flow.problem}" for flow in broken]),
            "Start a worker or client that has them; it stores them anew: headrace worker TARGET",
            tuple(flow.name for flow in broken),
        )
    if facts.unreadable_workers:
        yield Finding(
            "worker_unreadable",
            "warning",
            "Announcements of workers cannot be read: " + _listed(facts.unreadable_workers),
            "Are they of a newer release? Deploy orchestrators and clients before workers.",
            facts.unreadable_workers,
        )


def blocked(facts: Facts) -> Iterator[Finding]:
    count = sum(part.blocked for part in facts.partitions or ())
    if count:
        newest = _listed([f"{one.id} ({(one.reason or '').rstrip('.')})" for one in facts.blocked])
        which = quote(facts.blocked[0].id) if facts.blocked else "ID"
        yield Finding(
            "instances_blocked",
            "error",
            f"{_count(count, 'instance')} cannot go on: {newest}.",
            f"Mend the reason, then: headrace unblock {which} (or --all). All of them: headrace ls --status blocked",
            tuple(one.id for one in facts.blocked),
        )


def quarantine(facts: Facts) -> Iterator[Finding]:
    if facts.quarantined:
        newest = _listed([f"{one.id} ({one.reason.rstrip('.')[:120]})" for one in facts.quarantine])
        yield Finding(
            "quarantine",
            "warning",
            f"{_count(facts.quarantined, 'entry', 'entries')} could not be read or applied: {newest}.",
            "headrace quarantine ls, then show, retry or drop",
            tuple(one.id for one in facts.quarantine),
        )


CHECKS: Final[tuple[Check, ...]] = (
    *(server, persistence, eviction, memory, namespace, owners, inboxes),
    *(queues, tasks, records, blocked, quarantine),
)
"""`clock` goes beside them: it alone needs what no server tells."""


def examine(facts: Facts, offset_ms: int) -> list[Finding]:
    """All findings, errors first. `offset_ms`: by how much this machine's clock is ahead of the server's."""
    found = [finding for check in CHECKS for finding in check(facts)]
    found += clock(facts, offset_ms)
    return sorted(found, key=lambda finding: finding.severity != "error")


def _age_ms(facts: Facts, inbox: Inbox) -> int:
    return 0 if inbox.oldest_ms is None else facts.server_ms - inbox.oldest_ms


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())


def _numbers(parts: Iterable[PartitionFacts]) -> tuple[str, ...]:
    return tuple(str(part.number) for part in parts)


def _partitions(parts: Sequence[PartitionFacts]) -> str:
    return f"partition{'s' if len(parts) > 1 else ''} {_listed(_numbers(parts))}"


def _queue(stream: str) -> str:
    """As people know it."""
    queue = queue_of(stream)
    return queue if queue == stream else f"{queue} (isolation=process)"


def _calls(calls: Iterable[tuple[str, str]]) -> str:
    return _listed([f"{task} (queue {_queue(stream)})" for stream, task in calls])


def _count(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:_LISTED]) + (f" and {len(every) - _LISTED} more" if len(every) > _LISTED else "")
