"""A client on each server, and a hand that does what an orchestrator would."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from headrace.client import Client
from headrace.handle import Handle
from headrace.sync_handle import SyncHandle
from headrace_broker import codec, history, payloads, wire
from headrace_broker.connection import Link, Server, call, exchange
from headrace_broker.conversations import converse
from headrace_broker.keys import PartitionKeys
from headrace_broker.namespace import open_namespace
from support.scripts import preload


@pytest.fixture
async def client(server_url: str, namespace: str) -> AsyncIterator[Client]:
    preload(server_url)
    async with Client(server_url, namespace, retry_for="5s") as client:
        yield client


AnyHandle = Handle[Any] | SyncHandle[Any]


class Hand:
    """Ends instances, as an owner's commit does."""

    def __init__(self, link: Link, namespace: str) -> None:
        self._link = link
        self._namespace = namespace

    def keys(self, instance: str) -> PartitionKeys:
        return converse(self._link, open_namespace(self._namespace)).of(instance)

    def end(self, handle: AnyHandle, status: str, *, publish: bool = True, **fields: str | bytes) -> None:
        keys = self.keys(handle.id)
        inc = handle.incarnation or ""
        pairs = [part for pair in fields.items() for part in pair]
        exchange(self._link, [("HSET", keys.header(handle.id), "status", status, "ended", 1_700_000_000_000, *pairs)])
        if publish:
            call(self._link, "PUBLISH", keys.ended(inc), status)

    def complete(self, handle: AnyHandle, output: object, *, publish: bool = True) -> None:
        keys = self.keys(handle.id)
        inc = handle.incarnation or ""
        stored = payloads.store(codec.encode(output), lambda: keys.value(inc, "large"))
        if stored.write is not None:
            call(self._link, "SET", *stored.write)
        call(self._link, "HSET", keys.outputs(inc), "1.0", stored.value)
        self.end(handle, "completed", publish=publish, result="1.0")

    def fail(self, handle: AnyHandle, *parts: str) -> None:
        self.end(handle, "failed", error=wire.pack(list(parts)))

    def record(self, handle: AnyHandle, *signals: str) -> None:
        """A chunk of history: these signals were received."""
        chunk = history.pack([(1_700_000_000_000, history.SIGNAL_RECEIVED, signal, "") for signal in signals])
        call(self._link, "RPUSH", self.keys(handle.id).history(handle.incarnation or ""), chunk)

    def call(self, *command: Any) -> Any:
        return call(self._link, *command)


@pytest.fixture
def hand(server_url: str, namespace: str) -> Iterator[Hand]:
    link = Server(server_url).connect()
    yield Hand(link, namespace)
    link.close()
