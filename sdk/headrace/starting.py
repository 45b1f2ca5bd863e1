"""What a start needs to know of its flow, however many are started."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from headrace_broker.registry import FlowRecord, current_flow, store_flow
from headrace_broker.requests import Conflict, Payload, Started, StartRequest

from .flow import Flow
from .inputs import check_kind, json_payload, typed_payload
from .session import Session


@dataclass(frozen=True)
class Manner:
    """How instances are asked to start: alike for all that are started together. Who asks goes into the history."""

    conflict: Conflict = "fail"
    actor: str = ""
    traceparent: str = ""


@dataclass(frozen=True)
class Startable:
    """A flow as a start uses it. `encode` checks an input and makes it what is carried."""

    flow: str
    definition: str
    output_type: Any
    encode: Callable[[Any], Payload]

    def request(self, input: Any, id: str | None, manner: Manner) -> StartRequest:
        """A start with a random id if none is given.

        Raises `PayloadMismatch`, `PayloadNotSerializable`, `PayloadTooLarge`, `InvalidInstanceId`, and
        `InstanceError` for an overlong actor or traceparent.
        """
        return StartRequest(
            str(uuid4()) if id is None else id,
            self.flow,
            self.definition,
            self.encode(input),
            manner.conflict,
            manner.actor,
            manner.traceparent,
        )

    def output_of(self, started: Started) -> Any:
        """The type of its output; of any for an existing instance of another flow."""
        return self.output_type if started.flow == self.flow else Any


def startable(flow: Flow[Any, Any] | FlowRecord) -> Startable:
    """The author's flow, its input typed; or a registered one, its input JSON that fits the flow's schema."""
    if isinstance(flow, FlowRecord):
        what, schema = f"The input of flow {flow.name!r}", flow.schema
        return Startable(flow.name, flow.digest, Any, lambda value: json_payload(value, what, schema))
    what, input_type = f"The input of flow {flow.name!r}", flow.input_type
    return Startable(
        flow.name, flow.definition.digest, flow.output_type, lambda value: typed_payload(value, input_type, what)
    )


STORE_AGAIN_SECONDS: Final = 24 * 3600
"""A definition that is not stored for a week, and that nothing refers to, is swept (ADR 6)."""


class FlowStore:
    """The flows that a client starts. Each definition is stored once a day, however many start it at once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stored: dict[str, asyncio.Task[bool]] = {}
        self._store_again: dict[str, float] = {}

    async def startable(self, flow: Flow[Any, Any] | str) -> Startable:
        """Stores nothing. Raises `FlowNotFound` for a name of none, and `InvalidRequest` for neither flow nor name."""
        check_kind("A flow", flow, Flow, str)
        if not isinstance(flow, str):
            return startable(flow)
        return startable(
            await self._session.ask(lambda namespace: current_flow(namespace.keys, flow), f"look up flow {flow}")
        )

    async def store(self, flow: Flow[Any, Any]) -> None:
        digest = flow.definition.digest
        now = asyncio.get_running_loop().time()
        task = self._stored.get(digest)
        failed = task is not None and task.done() and (task.cancelled() or task.exception() is not None)
        if task is None or failed or now >= self._store_again[digest]:
            self._store_again[digest] = now + STORE_AGAIN_SECONDS
            task = self._stored[digest] = asyncio.create_task(self._store_now(flow))
        await asyncio.shield(task)

    async def close(self) -> None:
        for task in self._stored.values():
            task.cancel()
        await asyncio.gather(*self._stored.values(), return_exceptions=True)

    async def _store_now(self, flow: Flow[Any, Any]) -> bool:
        schema = schema_text(flow.input_schema())
        return await self._session.ask(
            lambda namespace: store_flow(
                namespace.keys, flow.definition, version=flow.version, schema=schema, retention=flow.retention
            ),
            f"store flow {flow.name}",
        )


def schema_text(schema: Mapping[str, Any] | None) -> str:
    """A JSON schema as it is stored; empty if anything goes."""
    return json.dumps(schema, separators=(",", ":")) if schema else ""
