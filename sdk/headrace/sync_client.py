"""The client for code without an event loop."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from datetime import datetime
from functools import partial
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from headrace_broker.connection import Connector
from headrace_broker.durations import Duration
from headrace_broker.instances import Status
from headrace_broker.listing import Page
from headrace_broker.queries import HistoryEvent
from headrace_broker.registry import FlowRecord
from headrace_broker.requests import Conflict
from headrace_broker.snapshots import Snapshot

from .background import Background
from .bulk import Chunk, Start, StartAnswer, ask_chunk, chunks, first_chunk
from .client import Client
from .flow import Flow
from .session import RETRY_FOR
from .signals import Signal
from .starting import Manner
from .sync_handle import SyncHandle

Input = TypeVar("Input")
Output = TypeVar("Output")
Payload = TypeVar("Payload")


class SyncClient:
    """`Client` with methods that wait: for scripts, web frameworks without asyncio, notebooks.

        with SyncClient("redis://localhost:6379/0") as client:
            handle = client.start(orders, Order(id="42", total=9), id="order-42")
            receipt = handle.result(timeout="1m")

    Any number of threads may use it. Behind it a `Client` runs on an event loop in one daemon thread, from the first
    call until `close`, or the end of the process. Ctrl-C ends a call that waits. A forked child connects anew at its
    first call.
    """

    def __init__(
        self,
        url: str | None = None,
        namespace: str | None = None,
        *,
        connector: Connector | None = None,
        retry_for: Duration = RETRY_FOR,
        random: Random | None = None,
    ) -> None:
        """As `Client`."""
        make = partial(Client, url, namespace, connector=connector, retry_for=retry_for, random=random)
        self._background = Background(make, Client.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """As `Client.close`; calls that still wait raise `ClientClosed` too."""
        self._background.close()

    @overload
    def start(
        self,
        flow: Flow[Input, Output],
        input: Input,
        *,
        id: str | None = None,
        conflict: Conflict = "fail",
        actor: str = "",
        traceparent: str = "",
    ) -> SyncHandle[Output]: ...

    @overload
    def start(
        self,
        flow: str,
        input: Any = None,
        *,
        id: str | None = None,
        conflict: Conflict = "fail",
        actor: str = "",
        traceparent: str = "",
    ) -> SyncHandle[Any]: ...

    def start(
        self,
        flow: Flow[Any, Any] | str,
        input: Any = None,
        *,
        id: str | None = None,
        conflict: Conflict = "fail",
        actor: str = "",
        traceparent: str = "",
    ) -> SyncHandle[Any]:
        """As `Client.start`."""
        handle = self._background.run(
            lambda client: client.start(flow, input, id=id, conflict=conflict, actor=actor, traceparent=traceparent)
        )
        return SyncHandle(self._background, handle.id, handle.incarnation, handle.output_type)

    @overload
    def start_many(
        self,
        flow: Flow[Input, Output],
        inputs: Iterable[Input | Start[Input]],
        *,
        conflict: Conflict = "fail",
        actor: str = "",
        traceparent: str = "",
    ) -> Generator[StartAnswer[SyncHandle[Output]]]: ...

    @overload
    def start_many(
        self,
        flow: str,
        inputs: Iterable[Any],
        *,
        conflict: Conflict = "fail",
        actor: str = "",
        traceparent: str = "",
    ) -> Generator[StartAnswer[SyncHandle[Any]]]: ...

    def start_many(
        self,
        flow: Flow[Any, Any] | str,
        inputs: Iterable[Any],
        *,
        conflict: Conflict = "fail",
        actor: str = "",
        traceparent: str = "",
    ) -> Generator[StartAnswer[SyncHandle[Any]]]:
        """As `Client.start_many`. The inputs are taken in the thread that asks for the answers."""
        manner = Manner(conflict, actor, traceparent)
        first = self._background.run(lambda client: first_chunk(client.flow_store, flow, inputs, manner))
        for chunk in chunks(first, inputs):
            yield from self._ask(chunk)

    @overload
    def signal(
        self,
        id: str,
        signal: Signal[Payload],
        payload: Payload,
        *,
        actor: str = "",
        traceparent: str = "",
        incarnation: str | None = None,
    ) -> None: ...

    @overload
    def signal(
        self,
        id: str,
        signal: str,
        payload: Any = None,
        *,
        actor: str = "",
        traceparent: str = "",
        incarnation: str | None = None,
    ) -> None: ...

    def signal(
        self,
        id: str,
        signal: Signal[Any] | str,
        payload: Any = None,
        *,
        actor: str = "",
        traceparent: str = "",
        incarnation: str | None = None,
    ) -> None:
        """As `Client.signal`."""
        self._background.run(
            lambda client: client.signal(
                id, signal, payload, actor=actor, traceparent=traceparent, incarnation=incarnation
            )
        )

    def cancel(self, id: str, *, reason: str = "", actor: str = "", incarnation: str | None = None) -> None:
        """As `Client.cancel`."""
        self._background.run(lambda client: client.cancel(id, reason=reason, actor=actor, incarnation=incarnation))

    def unblock(self, id: str, *, skip: bool = False, actor: str = "") -> None:
        """As `Client.unblock`."""
        self._background.run(lambda client: client.unblock(id, skip=skip, actor=actor))

    def delete(self, id: str, incarnation: str | None = None, *, force: bool = False) -> None:
        """As `Client.delete`."""
        self._background.run(lambda client: client.delete(id, incarnation, force=force))

    def get(self, id: str) -> Snapshot:
        """As `Client.get`."""
        return self._background.run(lambda client: client.get(id))

    def history(self, id: str, incarnation: str | None = None) -> Sequence[HistoryEvent]:
        """As `Client.history`."""
        return self._background.run(lambda client: client.history(id, incarnation))

    def list(
        self,
        *,
        status: Status | None = None,
        flow: str | Flow[Any, Any] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """As `Client.list`."""
        return self._background.run(
            lambda client: client.list(status=status, flow=flow, since=since, until=until, limit=limit, cursor=cursor)
        )

    @overload
    def handle(self, id: str, flow: Flow[Any, Output]) -> SyncHandle[Output]: ...

    @overload
    def handle(self, id: str, flow: None = None) -> SyncHandle[Any]: ...

    def handle(self, id: str, flow: Flow[Any, Any] | None = None) -> SyncHandle[Any]:
        """As `Client.handle`."""
        return SyncHandle(self._background, id, None, Any if flow is None else flow.output_type)

    def current_flow(self, name: str) -> FlowRecord:
        """As `Client.current_flow`."""
        return self._background.run(lambda client: client.current_flow(name))

    def flows(self) -> tuple[FlowRecord, ...]:
        """As `Client.flows`."""
        return self._background.run(lambda client: client.flows())

    def _ask(self, chunk: Chunk) -> Sequence[StartAnswer[SyncHandle[Any]]]:
        make_handle = partial(SyncHandle[Any], self._background)
        return self._background.run(lambda client: ask_chunk(client.session, chunk, make_handle))
