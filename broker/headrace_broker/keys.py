"""Every key and channel Headrace uses, each a function. Nothing else in the project spells a key.

A key of a partition carries the hash tag `{ns:p}`, so that one commit may touch all of them (DESIGN 1). A key that
belongs to one use of an instance id carries that use's incarnation (DESIGN 5).

    <ns>:namespace              hash    partitions, format version                      permanent
    <ns>:signals                stream  raw signals from anything                       trimmed by partition 0's owner
    <ns>:queues                 set     streams' names of all queues seen               permanent
    <ns>:workers                zset    keeper id -> alive until (ms)                   permanent, entries expire
    <ns>:worker:<keeper>        string  what that keeper serves                         ttl
    <ns>:flows                  set     names of registered flows                       permanent
    <ns>:flow:<name>            hash    current version and definition hash             permanent
    <ns>:def:<hash>             string  a definition                                    swept
    <ns>:definitions            zset    definition -> last stored (ms)                  permanent, entries swept
    {ns:p}:meta                 hash    owner token, commit number, cursors, now        permanent
    {ns:p}:owner                string  the owner's token                               ttl
    {ns:p}:events               stream  inbox: results, signals, controls               trimmed in the commit
    {ns:p}:starts               stream  inbox: new instances                            trimmed in the commit
    {ns:p}:outbox               stream  (later) what this partition tells another       trimmed by its relay
    {ns:p}:timers               zset    timer -> due (ms)                               owner
    {ns:p}:quarantine           stream  bad messages with their reason                  trimmed
    {ns:p}:missing              zset    blocked instances, by the definition they lack  owner
    {ns:p}:status:<status>      zset    instances, by creation; ended ones by end      owner
    {ns:p}:flow:<flow>          zset    instances of that flow, by creation (ms)        owner
    {ns:p}:retained:<class>:<flow>  zset  ended instances of that flow, by end (ms)     owner
    {ns:p}:purge                set     deleted incarnations whose keys are to be freed owner
    {ns:p}:definitions          hash    definition -> number of its instances           owner
    {ns:p}:tasks:<stream>       stream  ready tasks of a queue                          permanent while registered
    {ns:p}:req:<id>             string  the answer a request got                        ttl
    {ns:p}:i:<id>               hash    header of the id's newest incarnation           instance
    {ns:p}:a:<inc>              hash    header of an older incarnation                  instance
    {ns:p}:s:<inc>              hash    tokens and frames                               instance
    {ns:p}:o:<inc>              hash    values: inputs, outputs, buffered signals       instance
    {ns:p}:h:<inc>              list    history, packed chunks                          instance
    {ns:p}:p:<inc>              list    events parked while the instance is blocked     instance
    {ns:p}:v:<inc>:<random>     string  a value too large to be inline                  instance
    {ns:p}:l:<inc>              set     the keys of its large values that have no TTL   instance

A queue's stream is its name, or `<queue>:process` for tasks that run in work-horses; priorities get a suffix of
their own when they come. Limits of a queue will live in `<ns>:queue:<name>` (what was configured) and, in the
queue's home partition, in `{ns:p}:grants:<name>` (what is held).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args
from zlib import crc32

from .errors import ConfigurationError

Isolation = Literal["thread", "process"]
"""Where a task runs: in the child itself (event loop or thread), or in a forked work-horse."""

RetainedClass = Literal["completed", "failed"]
"""What retention tells apart: cancelled instances count as completed, terminated ones as failed."""
RETAINED_CLASSES: tuple[RetainedClass, ...] = get_args(RetainedClass)

GROUP = "workers"
"""The one consumer group of every task stream."""

_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def partition_of(instance: str, partitions: int) -> int:
    """The partition an instance lives in: `crc32(id) % partitions` (DESIGN 1)."""
    return crc32(instance.encode()) % partitions


def stream_of(queue: str, isolation: Isolation) -> str:
    """The name, within a partition, of the task stream that serves a queue under an isolation."""
    return f"{queue}:process" if isolation == "process" else queue


def queue_of(stream: str) -> str:
    """The queue a task stream's name belongs to; the inverse of `stream_of`."""
    return stream.partition(":")[0]


@dataclass(frozen=True)
class Keys:
    """The keys of a namespace."""

    ns: str

    def __post_init__(self) -> None:
        if not isinstance(self.ns, str) or not _NAMESPACE.fullmatch(self.ns):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"A namespace is 1 to 64 of the characters A-Z a-z 0-9 _ . - ; got {self.ns!r}.")

    @cached_property
    def namespace(self) -> str:
        return f"{self.ns}:namespace"

    @cached_property
    def signals(self) -> str:
        return f"{self.ns}:signals"

    @cached_property
    def queues(self) -> str:
        return f"{self.ns}:queues"

    @cached_property
    def workers(self) -> str:
        return f"{self.ns}:workers"

    @cached_property
    def flows(self) -> str:
        return f"{self.ns}:flows"

    @cached_property
    def definitions(self) -> str:
        return f"{self.ns}:definitions"

    def worker(self, keeper: str) -> str:
        return f"{self.ns}:worker:{keeper}"

    def flow(self, name: str) -> str:
        return f"{self.ns}:flow:{name}"

    def definition(self, digest: str) -> str:
        return f"{self.ns}:def:{digest}"

    def partition(self, number: int) -> PartitionKeys:
        return PartitionKeys(self.ns, number)


@dataclass(frozen=True)
class PartitionKeys:
    """The keys of one partition, all in one cluster slot."""

    ns: str
    number: int

    @cached_property
    def tag(self) -> str:
        return "{" + f"{self.ns}:{self.number}" + "}"

    @cached_property
    def meta(self) -> str:
        return f"{self.tag}:meta"

    @cached_property
    def owner(self) -> str:
        return f"{self.tag}:owner"

    @cached_property
    def events(self) -> str:
        return f"{self.tag}:events"

    @cached_property
    def starts(self) -> str:
        return f"{self.tag}:starts"

    @cached_property
    def outbox(self) -> str:
        return f"{self.tag}:outbox"

    @cached_property
    def timers(self) -> str:
        return f"{self.tag}:timers"

    @cached_property
    def quarantine(self) -> str:
        return f"{self.tag}:quarantine"

    @cached_property
    def missing(self) -> str:
        return f"{self.tag}:missing"

    @cached_property
    def purge(self) -> str:
        return f"{self.tag}:purge"

    @cached_property
    def counted(self) -> str:
        return f"{self.tag}:definitions"

    @cached_property
    def revoked(self) -> str:
        """Channel: dispatch ids whose tasks must stop."""
        return f"{self.tag}:revoked"

    def ended(self, incarnation: str) -> str:
        """Channel: one message, the status, when that incarnation ends."""
        return f"{self.tag}:ended:{incarnation}"

    def by_status(self, status: str) -> str:
        return f"{self.tag}:status:{status}"

    def by_flow(self, flow: str) -> str:
        return f"{self.tag}:flow:{flow}"

    def retained(self, kind: RetainedClass, flow: str) -> str:
        return f"{self.tag}:retained:{kind}:{flow}"

    def tasks(self, stream: str) -> str:
        return f"{self.tag}:tasks:{stream}"

    def request(self, request_id: str) -> str:
        return f"{self.tag}:req:{request_id}"

    def header(self, instance: str) -> str:
        return f"{self.tag}:i:{instance}"

    def archive(self, incarnation: str) -> str:
        return f"{self.tag}:a:{incarnation}"

    def state(self, incarnation: str) -> str:
        return f"{self.tag}:s:{incarnation}"

    def outputs(self, incarnation: str) -> str:
        return f"{self.tag}:o:{incarnation}"

    def history(self, incarnation: str) -> str:
        return f"{self.tag}:h:{incarnation}"

    def parked(self, incarnation: str) -> str:
        return f"{self.tag}:p:{incarnation}"

    def large(self, incarnation: str) -> str:
        return f"{self.tag}:l:{incarnation}"

    def values(self, incarnation: str) -> str:
        """What every key of `value` of that incarnation starts with."""
        return f"{self.tag}:v:{incarnation}:"

    def value(self, incarnation: str, name: str) -> str:
        return f"{self.tag}:v:{incarnation}:{name}"


End = Literal["permanent", "ttl", "trimmed", "instance", "owner"]


@dataclass(frozen=True)
class KeyKind:
    """What a key is for, and what ends it (invariant 8).

    `end`: `permanent` (on the short list), `ttl` (must have one), `trimmed` (a stream whose reader trims it),
    `instance` (goes with its incarnation), `owner` (what the partition's owner empties or deletes).
    `incarnation` is set for keys that carry one in their name; a live header carries its own inside.
    """

    name: str
    end: End
    incarnation: str | None = None


_NAMESPACE_KINDS: tuple[tuple[re.Pattern[str], str, End], ...] = (
    (re.compile(r"namespace"), "namespace", "permanent"),
    (re.compile(r"signals"), "signals", "trimmed"),
    (re.compile(r"queues"), "queues", "permanent"),
    (re.compile(r"workers"), "workers", "permanent"),
    (re.compile(r"flows"), "flows", "permanent"),
    (re.compile(r"worker:.+", re.DOTALL), "worker", "ttl"),
    (re.compile(r"flow:.+", re.DOTALL), "flow", "permanent"),
    (re.compile(r"def:.+", re.DOTALL), "definition", "owner"),
    (re.compile(r"definitions"), "definitions", "permanent"),
)

_PARTITION_KINDS: tuple[tuple[re.Pattern[str], str, End], ...] = (
    (re.compile(r"meta"), "meta", "permanent"),
    (re.compile(r"owner"), "owner", "ttl"),
    (re.compile(r"events"), "events", "trimmed"),
    (re.compile(r"starts"), "starts", "trimmed"),
    (re.compile(r"outbox"), "outbox", "trimmed"),
    (re.compile(r"timers"), "timers", "owner"),
    (re.compile(r"quarantine"), "quarantine", "trimmed"),
    (re.compile(r"missing"), "missing", "owner"),
    (re.compile(r"status:.+", re.DOTALL), "by_status", "owner"),
    (re.compile(r"flow:.+", re.DOTALL), "by_flow", "owner"),
    (re.compile(r"retained:(?:completed|failed):.+", re.DOTALL), "retained", "owner"),
    (re.compile(r"purge"), "purge", "owner"),
    (re.compile(r"definitions"), "counted", "owner"),
    (re.compile(r"tasks:.+", re.DOTALL), "tasks", "permanent"),
    (re.compile(r"req:.+", re.DOTALL), "request", "ttl"),
    (re.compile(r"i:.+", re.DOTALL), "header", "instance"),
    (re.compile(r"a:(?P<inc>[^:]+)"), "archive", "instance"),
    (re.compile(r"s:(?P<inc>[^:]+)"), "state", "instance"),
    (re.compile(r"o:(?P<inc>[^:]+)"), "outputs", "instance"),
    (re.compile(r"h:(?P<inc>[^:]+)"), "history", "instance"),
    (re.compile(r"p:(?P<inc>[^:]+)"), "parked", "instance"),
    (re.compile(r"l:(?P<inc>[^:]+)"), "large", "instance"),
    (re.compile(r"v:(?P<inc>[^:]+):.+", re.DOTALL), "value", "instance"),
)

_PARTITION_KEY = re.compile(r"\{[A-Za-z0-9_.-]+:\d+\}:(?P<rest>.+)", re.DOTALL)
_NAMESPACE_KEY = re.compile(r"[A-Za-z0-9_.-]+:(?P<rest>.+)", re.DOTALL)


def classify(key: str) -> KeyKind | None:
    """What kind of key this is; None for one that is not Headrace's (or should not exist)."""
    if match := _PARTITION_KEY.fullmatch(key):
        kinds = _PARTITION_KINDS
    elif match := _NAMESPACE_KEY.fullmatch(key):
        kinds = _NAMESPACE_KINDS
    else:
        return None
    for pattern, name, end in kinds:
        if found := pattern.fullmatch(match["rest"]):
            return KeyKind(name, end, found.groupdict().get("inc"))
    return None
