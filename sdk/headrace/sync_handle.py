"""A handle for code without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from headrace_broker.durations import Duration
from headrace_broker.queries import HistoryEvent
from headrace_broker.snapshots import Snapshot

from .background import Background
from .handle import Handle

if TYPE_CHECKING:
    from .client import Client
    from .signals import Signal

Output_co = TypeVar("Output_co", covariant=True)
Payload = TypeVar("Payload")
R = TypeVar("R")


class SyncHandle(Generic[Output_co]):
    """An instance, as `Handle` is; its methods wait. A `SyncClient` makes it."""

    def __init__(
        self, background: Background[Client], id: str, incarnation: str | None = None, output_type: Any = Any
    ) -> None:
        self.id = id
        self.incarnation = incarnation
        self._background = background
        self.output_type = output_type

    def __repr__(self) -> str:
        return f"SyncHandle({self.id!r})"

    def get(self) -> Snapshot:
        """As `Handle.get`."""
        return self._run(lambda handle: handle.get())

    def history(self) -> Sequence[HistoryEvent]:
        """As `Handle.history`."""
        return self._run(lambda handle: handle.history())

    def events(self, after: str | None = None) -> Generator[HistoryEvent]:
        """As `Handle.events`: waits for the next event until the instance has ended."""
        return self._background.iterate(lambda client: self._on(client).events(after))

    def signal(self, signal: Signal[Payload] | str, payload: Payload | Any = None, *, actor: str = "") -> None:
        """As `Handle.signal`."""
        self._run(lambda handle: handle.signal(signal, payload, actor=actor))

    def cancel(self, *, reason: str = "", actor: str = "") -> None:
        """As `Handle.cancel`."""
        self._run(lambda handle: handle.cancel(reason=reason, actor=actor))

    def result(self, timeout: Duration | None = None) -> Output_co:
        """As `Handle.result`."""
        return self._run(lambda handle: handle.result(timeout))

    def ended(self, *, even_if_blocked: bool = False) -> Snapshot:
        """As `Handle.ended`."""
        return self._run(lambda handle: handle.ended(even_if_blocked=even_if_blocked))

    def _on(self, client: Client) -> Handle[Output_co]:
        return Handle(client, self.id, self.incarnation, self.output_type)

    def _run(self, work: Callable[[Handle[Output_co]], Coroutine[Any, Any, R]]) -> R:
        async def on_loop(client: Client) -> R:
            handle = self._on(client)
            try:
                return await work(handle)
            finally:
                self.incarnation = handle.incarnation

        return self._background.run(on_loop)
