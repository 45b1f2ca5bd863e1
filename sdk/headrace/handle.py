"""A handle: one instance, as its starter sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from headrace_broker import payloads
from headrace_broker.conversations import converse_async
from headrace_broker.durations import Duration, format_duration, parse_duration
from headrace_broker.errors import InstanceBlocked, InstanceCancelled, InstanceFailed, InstanceNotFound
from headrace_broker.namespace import Namespace
from headrace_broker.queries import HistoryEvent, HistoryReader, read_header, read_slot, read_snapshot
from headrace_broker.shared_link import SharedLink
from headrace_broker.snapshots import Snapshot

from .following import follow

if TYPE_CHECKING:
    from .client import Client
    from .signals import Signal

Output_co = TypeVar("Output_co", covariant=True)
Payload = TypeVar("Payload")

_RECHECK_SECONDS = 5.0
"""A lost message delays a result by this much and half as much again."""


class Handle(Generic[Output_co]):
    """An instance. `incarnation` says which use of the id; None until known: the newest when first asked."""

    def __init__(self, client: Client, id: str, incarnation: str | None = None, output_type: Any = Any) -> None:
        self.id = id
        self.incarnation = incarnation
        self._client = client
        self.output_type = output_type

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    async def get(self) -> Snapshot:
        """Its status, and what it waits for. Raises `InstanceNotFound`, `ServerUnreachable`."""
        snapshot = await self._client.session.ask(
            lambda namespace: read_snapshot(namespace, self.id, self.incarnation), f"read instance {self.id}"
        )
        self.incarnation = snapshot.incarnation
        return snapshot

    async def history(self) -> Sequence[HistoryEvent]:
        """What happened to it, oldest first. Raises `InstanceNotFound`, `ServerUnreachable`."""
        return await self._client.history(self.id, self.incarnation)

    def events(self, after: str | None = None) -> AsyncGenerator[HistoryEvent]:
        """What happened to it, oldest first, then what happens, until it has ended; each event once.

            async for event in handle.events():
                print(event.at, event.kind, event.node)

        Each event has a `position`: `events(after=position)` goes on behind it, in another process too. What is new
        arrives within a second, mostly much sooner. A blocked instance may go on, so it is followed further.
        Raises `InstanceNotFound`, `ServerUnreachable`, and `InvalidRequest` for what is no position of its.
        """
        return follow(self._client.session, self._client.listener, HistoryReader(self.id, self.incarnation, after))

    async def signal(self, signal: Signal[Payload] | str, payload: Payload | Any = None, *, actor: str = "") -> None:
        """As `Client.signal`."""
        await self._client.signal(self.id, signal, payload, actor=actor, incarnation=self.incarnation)

    async def cancel(self, *, reason: str = "", actor: str = "") -> None:
        """As `Client.cancel`."""
        await self._client.cancel(self.id, reason=reason, actor=actor, incarnation=self.incarnation)

    async def result(self, timeout: Duration | None = None) -> Output_co:
        """What the flow returned, as soon as it has; the server tells, nothing polls.

        Raises `InstanceFailed` (with the worker's traceback as a note), `InstanceCancelled`, `InstanceBlocked`,
        `TimeoutError` after `timeout`, `InstanceNotFound`, and `PayloadMismatch` if the output does not fit the flow's
        output type.
        """
        ms = None if timeout is None else parse_duration(timeout)
        try:
            async with asyncio.timeout(None if ms is None else ms / 1000):
                ended = await self.ended()
        except TimeoutError:
            waited = format_duration(ms or 0)
            raise TimeoutError(f"Instance {self.id!r} has not ended after {waited}; it goes on.") from None
        return await self._output(ended)

    async def ended(self, *, even_if_blocked: bool = False) -> Snapshot:
        """The instance as soon as it has ended, or is blocked; `even_if_blocked` waits on for one that is blocked.

        Raises `InstanceNotFound`, `ServerUnreachable`.
        """

        def is_settled(snapshot: Snapshot) -> bool:
            return snapshot.has_ended or (snapshot.status == "blocked" and not even_if_blocked)

        session = self._client.session
        snapshot = await self._header()
        if is_settled(snapshot):
            return snapshot
        channel = (await session.namespace()).of(self.id).ended(snapshot.incarnation)
        async with self._client.listener.listen(channel) as bell:
            while not is_settled(snapshot := await self._header()):
                await bell.wait(_RECHECK_SECONDS * (1 + session.random.random() / 2))
        return snapshot

    async def _header(self) -> Snapshot:
        snapshot = await self._client.session.ask(
            lambda namespace: read_header(namespace, self.id, self.incarnation), f"wait for instance {self.id}"
        )
        self.incarnation = snapshot.incarnation
        return snapshot

    async def _output(self, ended: Snapshot) -> Output_co:
        if ended.status != "completed":
            raise outcome_error(ended)
        if ended.result_slot is None:
            return cast(Output_co, None)

        async def read(namespace: Namespace, link: SharedLink) -> bytes:
            keys = namespace.of(self.id)
            value = await converse_async(link, read_slot(keys, ended.incarnation, ended.result_slot or ""))
            if value is None:
                raise InstanceNotFound(f"The output of instance {self.id!r} is no longer stored.", instance=self.id)
            return await payloads.resolve(link, value, keys.outputs(ended.incarnation))

        value = await self._client.session.retry(read, f"read the output of instance {self.id}")
        return cast(Output_co, payloads.load(value, self.output_type))


def outcome_error(ended: Snapshot) -> Exception:
    """The error that tells why an instance did not complete."""
    about: dict[str, str] = {"instance": ended.id, "flow": ended.flow, "status": ended.status}
    if ended.status == "failed" and ended.error is not None:
        problem = ended.error
        where = f" at {problem.node}" if problem.node else ""
        error = InstanceFailed(
            f"Instance {ended.id!r} failed{where}: {problem.type}: {problem.message}",
            **about,
            node=problem.node,
            type=problem.type,
            traceback=problem.traceback,
        )
        if problem.traceback:
            error.add_note(f"On the worker:\n{problem.traceback}")
        return error
    because = f": {ended.reason}" if ended.reason else ""
    if ended.status == "failed":
        return InstanceFailed(f"Instance {ended.id!r} failed{because}", **about)
    if ended.status == "blocked":
        return InstanceBlocked(f"Instance {ended.id!r} is blocked{because}", **about, reason=ended.reason)
    return InstanceCancelled(f"Instance {ended.id!r} was {ended.status}{because}", **about, reason=ended.reason)
