"""The client: starts, signals, cancels, asks. For applications, tests and the command line."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from functools import partial
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from headrace_broker.awaited import Awaited
from headrace_broker.connection import Connector
from headrace_broker.deletion import DeleteRequest
from headrace_broker.durations import Duration
from headrace_broker.errors import InstanceFinished
from headrace_broker.ids import check_instance_id
from headrace_broker.instances import Status
from headrace_broker.listing import Filter, Page, list_instances
from headrace_broker.queries import HistoryEvent, read_history, read_snapshot
from headrace_broker.registry import FlowRecord, current_flow, list_flows
from headrace_broker.requests import CancelRequest, Conflict, SignalRequest, UnblockRequest
from headrace_broker.snapshots import Snapshot

from .bulk import Start, StartAnswer, ask_chunk, chunks_async, first_chunk
from .flow import Flow
from .handle import Handle
from .inputs import check_kind, json_payload, typed_payload
from .listener import Listener
from .session import RETRY_FOR, Session
from .signals import Signal
from .starting import FlowStore, Manner

Input = TypeVar("Input")
Output = TypeVar("Output")
Payload = TypeVar("Payload")

STORE_AGAIN_SECONDS = 24 * 3600
"""A definition that is not stored for a week, and that nothing refers to, is swept (ADR 6)."""


class Client:
    """A client of one namespace on one server, used by any number of tasks of one event loop.

        async with Client("redis://localhost:6379/0") as client:
            handle = await client.start(orders, Order(id="42", total=9), id="order-42")
            receipt = await handle.result(timeout="1m")

    It connects at the first request. A request that meets no server is tried again for `retry_for`, with the same
    request id, so that it is done once; then it raises `ServerUnreachable`.
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
        """`url` and `namespace` default to HEADRACE_URL and HEADRACE_NAMESPACE, then to a local server and `headrace`.

        `connector` and `random` replace the real server and real chance in simulations.
        """
        self.session = Session(url, namespace, connector, retry_for, random)
        self.listener = Listener(self.session)
        self.flow_store = FlowStore(self.session)
        self._awaited = Awaited()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes its connections, and the embedded server if this client started it; what it is asked then raises
        `ClientClosed`."""
        await self.listener.close()
        await self.flow_store.close()
        await self.session.close()

    @overload
    async def start(
        self,
        flow: Flow[Input, Output],
        input: Input,
        *,
        id: str | None = None,
        conflict: Conflict = "fail",
        actor: str = "",
        traceparent: str = "",
    ) -> Handle[Output]: ...

    @overload
    async def start(
        self,
        flow: str,
        input: Any = None,
        *,
        id: str | None = None,
        conflict: Conflict = "fail",
        actor: str = "",
        traceparent: str = "",
    ) -> Handle[Any]: ...

    async def start(
        self,
        flow: Flow[Any, Any] | str,
        input: Any = None,
        *,
        id: str | None = None,
        conflict: Conflict = "fail",
        actor: str = "",
        traceparent: str = "",
    ) -> Handle[Any]:
        """Starts an instance; when this returns it is durable, visible and takes signals, workers or not.

        A flow given by name is the one that is registered as current; its input is carried as JSON. `id` is 1 to 256
        bytes of your choice, a random UUID if left out. If an instance of that id is live, `conflict` says what to do:
        "fail" raises `InstanceExists`, "use_existing" returns its handle. `actor` says who asks, for the history.

        Raises `PayloadMismatch` (the input does not validate), `PayloadNotSerializable`, `PayloadTooLarge`,
        `InvalidInstanceId`, `InvalidRequest`, `FlowNotFound`, `InstanceExists`, `ServerUnreachable`.
        """
        what = await self.flow_store.startable(flow)
        request = what.request(input, id, Manner(conflict, actor, traceparent))
        if isinstance(flow, Flow):
            await self.flow_store.store(flow)
        started = await self.session.ask(request.hold, f"start instance {request.instance}")
        return Handle(self, request.instance, started.incarnation, what.output_of(started))

    @overload
    def start_many(
        self,
        flow: Flow[Input, Output],
        inputs: Iterable[Input | Start[Input]] | AsyncIterable[Input | Start[Input]],
        *,
        conflict: Conflict = "fail",
        actor: str = "",
        traceparent: str = "",
    ) -> AsyncGenerator[StartAnswer[Handle[Output]]]: ...

    @overload
    def start_many(
        self,
        flow: str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        conflict: Conflict = "fail",
        actor: str = "",
        traceparent: str = "",
    ) -> AsyncGenerator[StartAnswer[Handle[Any]]]: ...

    async def start_many(
        self,
        flow: Flow[Any, Any] | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        conflict: Conflict = "fail",
        actor: str = "",
        traceparent: str = "",
    ) -> AsyncGenerator[StartAnswer[Handle[Any]]]:
        """Starts an instance for each input, hundreds in a round trip; gives their answers, in the order of the inputs.

            async for answer in client.start_many(orders, (Start(order, id=f"order-{order.id}") for order in todays)):
                if answer.error is not None:
                    print(answer.number, answer.id, answer.error)

        An input in a `Start` has an id of its own, any other a random one. Nothing starts until the answers are
        asked for; up to 512 inputs, or 1 MiB of them, are taken ahead. An async iterable is not waited for while there
        is something to start. What is refused (`PayloadError`, `InvalidInstanceId`, `InstanceExists`) is told in its
        answer and stops no other. If `inputs` raise, so does this, after the answers for what came before.

        Raises `FlowNotFound`, `InvalidRequest`, and `ServerUnreachable`: what has no answer then may have been started
        or not; the same ids with `conflict="use_existing"` make it sure.
        """
        first = await first_chunk(self.flow_store, flow, inputs, Manner(conflict, actor, traceparent))
        async with aclosing(chunks_async(first, inputs)) as chunks:
            async for chunk in chunks:
                for answer in await ask_chunk(self.session, chunk, partial(Handle[Any], self)):
                    yield answer

    @overload
    async def signal(
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
    async def signal(
        self,
        id: str,
        signal: str,
        payload: Any = None,
        *,
        actor: str = "",
        traceparent: str = "",
        incarnation: str | None = None,
    ) -> None: ...

    async def signal(
        self,
        id: str,
        signal: Signal[Any] | str,
        payload: Any = None,
        *,
        actor: str = "",
        traceparent: str = "",
        incarnation: str | None = None,
    ) -> None:
        """Sends a signal. It waits in the instance until a step takes it; by name it is carried as JSON.

        `incarnation` names the use of the id that is meant; if the id was used anew since, that is `InstanceFinished`.
        Raises `InstanceNotFound`, `InstanceFinished`, `UnknownSignal` (no step of its flow waits for that name),
        `InvalidRequest`, `PayloadMismatch`, `PayloadNotSerializable`, `PayloadTooLarge`, `ServerUnreachable`.
        """
        check_kind("A signal", signal, Signal, str)
        if isinstance(signal, str):
            name, encoded = signal, json_payload(payload, f"The payload of signal {signal!r}")
        else:
            name = signal.name
            encoded = typed_payload(payload, signal.payload_type, f"The payload of signal {name!r}")
        request = SignalRequest(id, name, encoded, actor, traceparent, incarnation)
        await self.session.ask(lambda namespace: request.hold(namespace, self._awaited), f"send signal {name} to {id}")

    async def cancel(self, id: str, *, reason: str = "", actor: str = "", incarnation: str | None = None) -> None:
        """Asks for an instance to be cancelled; `handle.result()` tells when it is. `incarnation` as for `signal`.

        Raises `InstanceNotFound`, `InstanceFinished`, `ServerUnreachable`.
        """
        await self.session.ask(CancelRequest(id, reason, actor, incarnation=incarnation).hold, f"cancel instance {id}")

    async def unblock(self, id: str, *, skip: bool = False, actor: str = "") -> None:
        """Lets a blocked instance go on where it stopped, with all that came for it meanwhile.

        `skip` leaves out the event that could not be applied. It is blocked again if what blocked it is still so.
        Raises `InstanceNotFound`, `InstanceNotBlocked`, `ServerUnreachable`.
        """
        await self.session.ask(UnblockRequest(id, skip, actor).hold, f"unblock instance {id}")

    async def delete(self, id: str, incarnation: str | None = None, *, force: bool = False) -> None:
        """Deletes an ended instance and all that is stored of it, before its retention does; its id is free then.

        Durable when it returns, carried out soon after. `incarnation` names an earlier use of the id. `force` cancels a
        live one first, and waits for its end. Raises `InstanceNotFound`, `InstanceNotEnded`, `ServerUnreachable`.
        """
        if force:
            with suppress(InstanceFinished):
                await self.cancel(id, reason="to be deleted", incarnation=incarnation)
            await Handle[Any](self, id, incarnation, Any).ended(even_if_blocked=True)
        request = DeleteRequest(id, incarnation)
        await self.session.ask(request.hold, f"delete instance {id}")

    async def get(self, id: str) -> Snapshot:
        """An instance's status, and what it waits for. Raises `InstanceNotFound`, `ServerUnreachable`."""
        check_instance_id(id)
        return await self.session.ask(lambda namespace: read_snapshot(namespace, id), f"read instance {id}")

    async def history(self, id: str, incarnation: str | None = None) -> Sequence[HistoryEvent]:
        """What happened to an instance, oldest first. Raises `InstanceNotFound`, `ServerUnreachable`."""
        check_instance_id(id)
        return await self.session.ask(
            lambda namespace: read_history(namespace, id, incarnation), f"read the history of {id}"
        )

    async def list(
        self,
        *,
        status: Status | None = None,
        flow: str | Flow[Any, Any] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Instances, newest first; `since` and `until` bound their creation. Go on with the page's `cursor`.

        Raises `ConfigurationError` for a bad status, limit (1 to 1,000) or cursor, and `ServerUnreachable`.
        """
        name = flow.name if isinstance(flow, Flow) else flow
        which = Filter(status, name, since, until)
        return await self.session.ask(
            lambda namespace: list_instances(namespace, which, limit=limit, cursor=cursor), "list instances"
        )

    @overload
    def handle(self, id: str, flow: Flow[Any, Output]) -> Handle[Output]: ...

    @overload
    def handle(self, id: str, flow: None = None) -> Handle[Any]: ...

    def handle(self, id: str, flow: Flow[Any, Any] | None = None) -> Handle[Any]:
        """A handle of an instance that was started elsewhere; `flow` gives the type of its output. Asks nothing yet.

        Raises `InvalidInstanceId`, `InvalidRequest`.
        """
        check_instance_id(id)
        check_kind("A handle's flow", flow, Flow, type(None))
        return Handle(self, id, None, Any if flow is None else flow.output_type)

    async def current_flow(self, name: str) -> FlowRecord:
        """What a start by that name would use. Raises `FlowNotFound`, which lists the flows there are."""
        check_kind("A flow's name", name, str)
        return await self.session.ask(lambda namespace: current_flow(namespace.keys, name), f"look up flow {name}")

    async def flows(self) -> tuple[FlowRecord, ...]:
        """All registered flows, by name."""
        found = await self.session.ask(lambda namespace: list_flows(namespace.keys), "list flows")
        return tuple(found)
