"""What clients ask of instances: start, signal, cancel, unblock. Durable when answered, with no orchestrator running.

Each request is made once and may be held as a conversation any number of times: its id makes a repetition get the
answer of the first time (DESIGN 5), so a lost reply is mended by asking again within `ANSWER_MS`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, cast, get_args

from . import messages, payloads, scripting
from .awaited import Awaited
from .conversations import Conversation, ask
from .errors import (
    InstanceExists,
    InstanceFinished,
    InstanceNotBlocked,
    InvalidRequest,
    ServerError,
)
from .ids import check_instance_id, new_incarnation, new_request_id
from .instances import unknown
from .keys import PartitionKeys
from .messages import CancelMessage, SignalMessage, StartMessage, UnblockMessage
from .namespace import Namespace

Conflict = Literal["fail", "use_existing"]
"""What a start does if an instance of that id is live."""

ANSWER_MS: Final = 600_000
"""How long the answer to a request id is kept (DESIGN 5)."""
TEXT_LIMIT: Final = 4096
"""Bytes of a reason; names, actors and traces have 256."""

STARTS_PER_SCRIPT: Final = 256
"""Starts that one call of the script does: the server does nothing else meanwhile."""

_NAME_LIMIT: Final = 256
_MOVES: Final = 8
"""Tries of a signal: what it was told of the instance may not be true any more at the next."""


@dataclass(frozen=True)
class Payload:
    """What a value carries: encoded bytes and their codec, `m` (MessagePack) or `j` (JSON)."""

    data: bytes
    codec: Literal["m", "j"] = "m"


@dataclass(frozen=True)
class Started:
    """The answer to a start. `existing`: the instance was there before (`use_existing`)."""

    incarnation: str
    flow: str
    existing: bool


@dataclass(frozen=True)
class StartRequest:
    """A start. Raises `InvalidInstanceId` and `InvalidRequest` when made; `hold` says what asking raises."""

    instance: str
    flow: str
    definition: str
    payload: Payload
    conflict: Conflict = "fail"
    actor: str = ""
    traceparent: str = ""
    request: str = field(default_factory=new_request_id)
    incarnation: str = field(default_factory=new_incarnation)

    def __post_init__(self) -> None:
        check_instance_id(self.instance)
        if self.conflict not in get_args(Conflict):
            raise InvalidRequest(f"A conflict policy is one of {', '.join(get_args(Conflict))}; got {self.conflict!r}.")
        _check_text("an actor", self.actor)
        _check_text("a traceparent", self.traceparent)

    def hold(self, namespace: Namespace) -> Conversation[Started]:
        """Raises `InstanceExists`, `PayloadTooLarge`, `ServerError`."""
        (answer,) = yield from hold_starts(namespace, [self])
        if isinstance(answer, InstanceExists):
            raise answer
        return answer

    def arguments(self, keys: PartitionKeys) -> tuple[str | bytes, ...]:
        """What the script is told of this instance. Raises `PayloadTooLarge`."""
        stored = payloads.store(self.payload.data, _value_namer(keys, self.incarnation), self.payload.codec)
        large_key, large = stored.write or ("", b"")
        message = StartMessage(
            *(self.instance, self.incarnation, self.flow, self.definition, stored.value),
            request=self.request,
            actor=self.actor,
            traceparent=self.traceparent,
        )
        return self.instance, self.incarnation, messages.pack(message), large, large_key


def hold_starts(namespace: Namespace, starts: Sequence[StartRequest]) -> Conversation[list[Started | InstanceExists]]:
    """Any number of starts in one round trip, with their answers in order; one that is refused stops no other.

    They are alike in flow, definition, conflict policy, actor and traceparent. Raises `PayloadTooLarge`, before
    anything is sent, and `ServerError`.
    """
    places: dict[PartitionKeys, list[int]] = {}
    for place, request in enumerate(starts):
        places.setdefault(namespace.of(request.instance), []).append(place)
    calls = [
        (keys, mine[first : first + STARTS_PER_SCRIPT])
        for keys, mine in places.items()
        for first in range(0, len(mine), STARTS_PER_SCRIPT)
    ]
    replies = yield from scripting.call_each(
        scripting.load("start"), [_start_call(keys, [starts[place] for place in group]) for keys, group in calls]
    )
    answers: dict[int, Started | InstanceExists] = {}
    for (_, group), reply in zip(calls, replies, strict=True):
        answers |= {place: _start_answer(starts[place], one) for place, one in zip(group, reply, strict=True)}
    return [answers[place] for place in range(len(starts))]


def _start_call(keys: PartitionKeys, starts: Sequence[StartRequest]) -> tuple[list[str], list[str | bytes | int]]:
    """The script's keys and arguments for starts in one partition."""
    alike = starts[0]
    names = [keys.starts, keys.by_status("queued"), keys.by_flow(alike.flow), keys.archive(""), keys.counted]
    told: list[str | bytes | int] = [alike.flow, alike.definition, alike.actor, alike.traceparent]
    told += [alike.conflict, ANSWER_MS]
    for request in starts:
        names += [keys.header(request.instance), keys.request(request.request), keys.large(request.incarnation)]
        told += request.arguments(keys)
    return names, told


def _start_answer(request: StartRequest, reply: Sequence[bytes]) -> Started | InstanceExists:
    answer, incarnation, flow, status = (part.decode() for part in reply)
    if answer != "exists":
        return Started(incarnation, flow, answer == "existing")
    return InstanceExists(
        f"An instance of id {request.instance!r} is live: flow {flow!r}, {status}. "
        "Choose another id, or take that one: --conflict use_existing (in Python: conflict='use_existing').",
        instance=request.instance,
        flow=flow,
        status=status,
    )


@dataclass(frozen=True)
class SignalRequest:
    """A signal to a live instance: to the newest use of its id, or to none but that `incarnation`.

    Raises `InvalidInstanceId` and `InvalidRequest` when made.
    """

    instance: str
    name: str
    payload: Payload
    actor: str = ""
    traceparent: str = ""
    incarnation: str | None = None
    request: str = field(default_factory=new_request_id)

    def __post_init__(self) -> None:
        check_instance_id(self.instance)
        _check_text("a signal's name", self.name)
        if not self.name or not self.name.isprintable():
            raise InvalidRequest(
                f"A signal's name has 1 to {_NAME_LIMIT} bytes, without control or invisible characters; "
                f"got {self.name!r}."
            )
        _check_text("an actor", self.actor)
        _check_text("a traceparent", self.traceparent)

    def hold(self, namespace: Namespace, awaited: Awaited | None = None) -> Conversation[str]:
        """The incarnation that got it. `awaited` is what the client knows; None sends what nobody waits for as well.

        Raises `InstanceNotFound`, `InstanceFinished`, `UnknownSignal`, `PayloadTooLarge`, `ServerError`.
        """
        keys = namespace.of(self.instance)
        incarnation = ""
        for _ in range(_MOVES):
            stored = payloads.store(self.payload.data, _value_namer(keys, incarnation), self.payload.codec)
            if stored.write is not None and not incarnation:
                # A large value lies under the incarnation it belongs to, so that has to be known first.
                (seen,) = yield from ask(("HGET", keys.header(self.instance), "inc"))
                if seen is None:
                    raise unknown(self.instance)
                incarnation = seen.decode()
                continue
            allowed = "*" if awaited is None else " ".join(awaited.definitions(self.name))
            packed = self._packed(stored)
            try:
                return (
                    yield from _send(
                        keys, self.instance, self.request, packed, stored, incarnation, allowed, self.incarnation
                    )
                )
            except _Moved as moved:
                incarnation = moved.incarnation
            except _Refused as refused:
                assert awaited is not None
                yield from awaited.learn(namespace.keys, self.instance, refused.definition, self.name)
        raise ServerError(f"Instance {self.instance!r} was started anew {_MOVES} times while a signal was sent to it.")

    def _packed(self, stored: payloads.Stored) -> bytes:
        return messages.pack(
            SignalMessage(self.instance, self.name, stored.value, self.request, self.actor, self.traceparent)
        )


@dataclass(frozen=True)
class CancelRequest:
    """The wish that a live instance be cancelled: the newest use of its id, or none but that `incarnation`.

    Raises `InvalidInstanceId` and `InvalidRequest` when made.
    """

    instance: str
    reason: str = ""
    actor: str = ""
    traceparent: str = ""
    incarnation: str | None = None
    request: str = field(default_factory=new_request_id)

    def __post_init__(self) -> None:
        check_instance_id(self.instance)
        _check_text("a reason", self.reason, TEXT_LIMIT)
        _check_text("an actor", self.actor)
        _check_text("a traceparent", self.traceparent)

    def hold(self, namespace: Namespace) -> Conversation[str]:
        """The incarnation that got it. Raises `InstanceNotFound`, `InstanceFinished`, `ServerError`."""
        message = messages.pack(CancelMessage(self.instance, self.reason, self.request, self.actor, self.traceparent))
        keys = namespace.of(self.instance)
        return (yield from _send(keys, self.instance, self.request, message, only=self.incarnation))


@dataclass(frozen=True)
class UnblockRequest:
    """The wish that a blocked instance go on. `skip` leaves out the event that blocked it.

    Raises `InvalidInstanceId` and `InvalidRequest` when made.
    """

    instance: str
    skip: bool = False
    actor: str = ""
    traceparent: str = ""
    request: str = field(default_factory=new_request_id)

    def __post_init__(self) -> None:
        check_instance_id(self.instance)
        _check_text("an actor", self.actor)
        _check_text("a traceparent", self.traceparent)

    def hold(self, namespace: Namespace) -> Conversation[str]:
        """The incarnation that got it. Raises `InstanceNotFound`, `InstanceNotBlocked`, `ServerError`."""
        keys = namespace.of(self.instance)
        answered, status = yield from ask(
            ("GET", keys.request(self.request)), ("HGET", keys.header(self.instance), "status")
        )
        if status is None:
            raise unknown(self.instance)
        if status != b"blocked" and answered is None:
            found = status.decode(errors="replace")
            raise InstanceNotBlocked(
                f"Instance {self.instance!r} is not blocked, it is {found}.", instance=self.instance, status=found
            )
        message = UnblockMessage(self.instance, self.skip, self.request, self.actor, self.traceparent)
        return (yield from _send(keys, self.instance, self.request, messages.pack(message)))


class _Moved(Exception):
    """The id was used anew since its incarnation was read."""

    def __init__(self, incarnation: str) -> None:
        super().__init__(incarnation)
        self.incarnation = incarnation


class _Refused(Exception):
    """It is not known that the instance's definition may get this."""

    def __init__(self, definition: str) -> None:
        super().__init__(definition)
        self.definition = definition


def _send(
    keys: PartitionKeys,
    instance: str,
    request: str,
    message: bytes,
    stored: payloads.Stored | None = None,
    incarnation: str = "",
    allowed: str = "*",
    only: str | None = None,
) -> Conversation[str]:
    large_key, large = (stored and stored.write) or (keys.header(instance), b"")
    reply = yield from scripting.call(
        scripting.load("send"),
        [keys.header(instance), keys.events, keys.request(request), large_key, keys.large(incarnation)],
        [message, ANSWER_MS, large, incarnation, allowed, only or ""],
    )
    answer, detail = reply
    match answer:
        case b"sent":
            return cast(bytes, detail).decode()
        case b"moved":
            raise _Moved(cast(bytes, detail).decode())
        case b"refused":
            raise _Refused(cast(bytes, detail).decode())
        case b"superseded":
            raise InstanceFinished(
                f"That use of the id {instance!r} has ended, and the id was used anew. A handle of the newest: "
                "client.handle(id).",
                instance=instance,
            )
        case b"ended":
            status = detail.decode()
            ended = "is being cancelled" if status == "cancelling" else f"has ended: {status}"
            raise InstanceFinished(
                f"Instance {instance!r} {ended}; it takes no more signals or controls.",
                instance=instance,
                status=status,
            )
        case _:
            raise unknown(instance)


def _value_namer(keys: PartitionKeys, incarnation: str) -> Callable[[], str]:
    return partial(_name_value, keys, incarnation)


def _name_value(keys: PartitionKeys, incarnation: str) -> str:
    return keys.value(incarnation, secrets.token_urlsafe(9))


def _check_text(what: str, text: object, limit: int = _NAME_LIMIT) -> None:
    if not isinstance(text, str):
        raise InvalidRequest(f"{what.capitalize()} is text; got {type(text).__name__} {text!r:.80}.")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what.capitalize()} is valid Unicode; got {text!r}.") from None
    if size > limit:
        raise InvalidRequest(f"{what.capitalize()} has at most {limit} bytes; got {size}.")
