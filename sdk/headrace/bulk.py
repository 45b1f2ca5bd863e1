"""Starting many instances: hundreds in a round trip, with an answer for each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from headrace_broker.errors import HeadraceError, InstanceExists, InvalidInstanceId, InvalidRequest, PayloadError
from headrace_broker.requests import StartRequest, hold_starts

from .flow import Flow
from .session import Session
from .starting import FlowStore, Manner, Startable

Input_co = TypeVar("Input_co", covariant=True)
AnyHandle = TypeVar("AnyHandle")
AnyHandle_co = TypeVar("AnyHandle_co", covariant=True)
T = TypeVar("T")

MAX_STARTS: Final = 512
MAX_BYTES: Final = 1 << 20
"""What is asked in one round trip: so many starts, and payloads up to the first that passes so many bytes."""
_READ_AHEAD: Final = 256
"""Inputs taken from an async iterable while others are on their way."""


@dataclass(frozen=True)
class Start(Generic[Input_co]):
    """An input with an id of its own, for `start_many`."""

    input: Input_co
    id: str | None = None


@dataclass(frozen=True)
class StartAnswer(Generic[AnyHandle_co]):
    """What became of one start of `start_many`.

    `number` counts the inputs from 0; `id` is None for an input that was refused before it got a random one. `error`
    says why it was refused, None if it was not. `existing`: the instance was there before (`use_existing`).
    """

    number: int
    id: str | None
    error: HeadraceError | None = None
    existing: bool = False
    _handle: AnyHandle_co | None = field(default=None, repr=False)

    @property
    def handle(self) -> AnyHandle_co:
        """The instance's handle. Raises `error` if the start was refused."""
        if self._handle is None:
            raise self.error or HeadraceError("The start was refused.")
        return self._handle


class Chunk:
    """What goes out together: requests, and the answers of those that are refused here already, by number."""

    def __init__(self, what: Startable, manner: Manner, first: int = 0) -> None:
        self.what = what
        self.requests: dict[int, StartRequest] = {}
        self.refused: list[StartAnswer[Any]] = []
        self._manner = manner
        self._next = first
        self._first = first
        self._size = 0

    @property
    def is_full(self) -> bool:
        return self._next - self._first >= MAX_STARTS or self._size >= MAX_BYTES

    def add(self, item: object) -> None:
        number, self._next = self._next, self._next + 1
        start: Start[Any] = item if isinstance(item, Start) else Start(item)  # pyright: ignore[reportUnknownVariableType] mypy calls a cast redundant
        try:
            request = self.what.request(start.input, start.id, self._manner)
        except (PayloadError, InvalidInstanceId) as error:
            self.refused.append(StartAnswer(number, start.id, error))
        else:
            self.requests[number] = request
            self._size += len(request.payload.data)

    def next(self) -> Chunk:
        """An empty one that goes on where this ends."""
        return Chunk(self.what, self._manner, self._next)


async def first_chunk(store: FlowStore, flow: Flow[Any, Any] | str, inputs: object, manner: Manner) -> Chunk:
    """An empty chunk for starts of a flow, which is stored then. Raises `FlowNotFound`, `InvalidRequest`."""
    if not isinstance(inputs, Iterable | AsyncIterable) or isinstance(inputs, str | bytes | Mapping):
        raise InvalidRequest(f"Inputs are an iterable, with one input for each instance; got {inputs!r:.80}.")
    what = await store.startable(flow)
    if isinstance(flow, Flow):
        await store.store(flow)
    return Chunk(what, manner)


def chunks(chunk: Chunk, inputs: Iterable[Any]) -> Generator[Chunk]:
    """All that the inputs give, from the empty `chunk` on; where they raise, what came before goes out first."""
    failure: Exception | None = None
    try:
        for item in inputs:
            chunk.add(item)
            if chunk.is_full:
                yield chunk
                chunk = chunk.next()
    except Exception as error:  # noqa: BLE001 whatever the inputs raise
        failure = error
    yield chunk
    if failure is not None:
        raise failure


def chunks_async(chunk: Chunk, inputs: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Chunk]:
    """As `chunks`; of an async iterable, what has arrived does not wait for what has not."""
    return _as_they_come(chunk, inputs) if isinstance(inputs, AsyncIterable) else _in_turn(chunk, inputs)


async def _in_turn(chunk: Chunk, inputs: Iterable[Any]) -> AsyncGenerator[Chunk]:
    for full in chunks(chunk, inputs):
        yield full


async def _as_they_come(chunk: Chunk, inputs: AsyncIterable[Any]) -> AsyncGenerator[Chunk]:
    failure: Exception | None = None
    try:
        async with aclosing(_arriving(inputs)) as items:
            async for item in items:
                if item is not None:
                    chunk.add(item[0])
                if item is None or chunk.is_full:
                    yield chunk
                    chunk = chunk.next()
    except Exception as error:  # noqa: BLE001 whatever the inputs raise
        failure = error
    yield chunk
    if failure is not None:
        raise failure


async def ask_chunk(
    session: Session, chunk: Chunk, make_handle: Callable[[str, str, Any], AnyHandle]
) -> list[StartAnswer[AnyHandle]]:
    """The answers, in the order of the inputs. `make_handle` is given id, incarnation and output type."""
    answers = chunk.refused
    if chunk.requests:
        requests = list(chunk.requests.values())
        found = await session.ask(
            lambda namespace: hold_starts(namespace, requests), f"start {len(requests)} instances"
        )
        for (number, request), one in zip(chunk.requests.items(), found, strict=True):
            if isinstance(one, InstanceExists):
                answers.append(StartAnswer(number, request.instance, one))
            else:
                handle = make_handle(request.instance, one.incarnation, chunk.what.output_of(one))
                answers.append(StartAnswer(number, request.instance, None, one.existing, handle))
    return sorted(answers, key=lambda answer: answer.number)


async def _arriving(inputs: AsyncIterable[T]) -> AsyncGenerator[tuple[T] | None]:
    """Inputs as they come; None: the next one is not there yet, so that those before it need not wait for it.

    One task reads them, for a generator may hold what belongs to a task.
    """
    waiting: deque[T] = deque()
    came, taken = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async for item in inputs:
            waiting.append(item)
            came.set()
            while len(waiting) >= _READ_AHEAD:
                taken.clear()
                await taken.wait()

    reader = asyncio.create_task(read())
    reader.add_done_callback(lambda _: came.set())
    try:
        while True:
            came.clear()
            while waiting:
                yield (waiting.popleft(),)
                taken.set()
            if reader.done():
                break
            yield None
            await came.wait()
        await reader
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
