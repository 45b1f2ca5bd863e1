"""What an instance looks like from outside: its header, and what it waits for. Pure decoding, see `queries`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from . import records, wire
from .definitions import Definition, Node, TaskCall
from .errors import MessageError
from .instances import ENDED, STATUSES, Status
from .keys import stream_of
from .records import Record, Token
from .workers import WorkerRecord

WaitKind = Literal["signal", "timer", "retry", "task", "worker"]
"""`timer` is a delay, `retry` the delay before another attempt, `task` one that is handed out, `worker` one that no
live worker serves."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Waiting:
    """One thing the instance waits for. `until`: when its timer is due, if it has one."""

    kind: WaitKind
    name: str
    node: str
    until: datetime | None = None
    attempt: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True)
class Problem:
    """Why an instance failed. `traceback` is the worker's, as text."""

    type: str
    message: str
    traceback: str = ""
    node: str = ""


@dataclass(frozen=True)
class Snapshot:
    """An instance as it was when it was read. `waiting_for` leaves out tasks that are handed out to a worker."""

    id: str
    incarnation: str
    flow: str
    definition: str
    status: Status
    created: datetime
    ended: datetime | None
    run: int
    actor: str
    error: Problem | None = None
    reason: str | None = None
    """Of a cancel or a block."""
    result_slot: str | None = None
    waiting_for: tuple[Waiting, ...] = ()
    active: tuple[Waiting, ...] = ()
    """The tasks that are handed out."""
    parked: int = 0
    """Events that came while it was blocked, and are applied when it is unblocked."""
    guilty: bool = False
    """The first of them is the one that blocked it."""

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


def decode_header(instance: str, reply: Sequence[bytes]) -> Snapshot:
    """The reply of HGETALL as a snapshot, without what it waits for. Raises `MessageError`."""
    fields = {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}
    try:
        status = fields["status"].decode()
        if status not in STATUSES:
            raise MessageError(f"Instance {instance!r} has the status {status!r}, which this release does not know.")
        slot = fields.get("result")
        error, reason = decode_error(status, fields.get("error"))
        return Snapshot(
            id=instance,
            incarnation=fields["inc"].decode(),
            flow=fields["flow"].decode(),
            definition=fields["def"].decode(),
            status=status,
            created=moment(int(fields["created"])),
            ended=moment(int(fields["ended"])) if "ended" in fields else None,
            run=int(fields.get("run", 1)),
            actor=fields.get("actor", b"").decode(),
            error=error,
            reason=reason,
            result_slot=None if slot is None else slot.decode(),
            parked=int(fields.get("parked", 0)),
            guilty=fields.get("guilty") == b"1",
        )
    except (KeyError, OverflowError, ValueError) as error:
        raise MessageError(f"The header of instance {instance!r} cannot be read: {error!r}.") from None


def decode_error(status: str, data: bytes | None) -> tuple[Problem | None, str | None]:
    """The header's `error` as (problem, reason): one of them at most."""
    if not data:
        return None, None
    try:
        parts = [str(part) for part in wire.fields(wire.unpack(data), "the parts of an error")]
    except MessageError as error:
        return Problem("MessageError", f"The recorded error cannot be read: {error}"), None
    if status == "failed":
        return Problem(*[*parts, "", ""][:4]), None
    return None, parts[0] if parts else ""


def waits(
    state: Mapping[str, Record], definition: Definition | None, workers: Sequence[WorkerRecord] | None = None
) -> tuple[tuple[Waiting, ...], tuple[Waiting, ...]]:
    """(what it waits for, tasks that are handed out), by node. `workers` are those that live, None if nobody knows."""
    waiting: list[Waiting] = []
    active: list[Waiting] = []
    for field, record in sorted(state.items()):
        if field[0] != "t" or not isinstance(record, Token):
            continue
        wait = _wait(record, _node(definition, record.node), workers)
        if wait is not None:
            (active if wait.kind == "task" else waiting).append(wait)
    return tuple(waiting), tuple(active)


def _wait(token: Token, node: Node, workers: Sequence[WorkerRecord] | None) -> Waiting | None:
    until = moment(token.due) if token.timer and token.due else None
    match token.phase:
        case records.AWAITING:
            return Waiting("signal", str(node.params.get("signal", node.name)), node.name, until)
        case records.SLEEPING:
            return Waiting("timer", node.name, node.name, until)
        case records.BACKOFF:
            return Waiting("retry", node.name, node.name, until, token.attempt)
        case records.DISPATCHED:
            call = TaskCall.from_wire(node.params["call"]) if "call" in node.params else TaskCall(node.name)
            kind: WaitKind = "task" if workers is None or _is_served(call, workers) else "worker"
            return Waiting(kind, call.task, node.name, until, token.attempt)
        case _:
            return None


def _is_served(call: TaskCall, workers: Sequence[WorkerRecord]) -> bool:
    stream = stream_of(call.queue, call.isolation)
    return any(stream in worker.streams and call.task in worker.tasks for worker in workers)


def node_name(definition: Definition | None, index: int) -> str:
    return _node(definition, index).name


def _node(definition: Definition | None, index: int) -> Node:
    if definition is not None and 0 <= index < len(definition.nodes):
        return definition.nodes[index]
    return Node("unknown", f"#{index}", None, {})


def moment(ms: int) -> datetime:
    """Milliseconds since the epoch as a time in UTC."""
    return _EPOCH + timedelta(milliseconds=ms)


def milliseconds(when: datetime) -> int:
    """A time as milliseconds since the epoch; one without a zone is local."""
    return (when.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)
