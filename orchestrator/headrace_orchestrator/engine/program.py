"""A program: a definition whose nodes know their kind and have their parameters parsed, once per definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from headrace_broker.definitions import Definition, TaskCall
from headrace_broker.errors import MessageError
from headrace_broker.messages import ResultMessage, StartedMessage
from headrace_broker.records import Frame, Token

if TYPE_CHECKING:
    from .turn import Turn


UNFIT: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading parameters of unknown make can raise. Anything else would stop the partition that loads them."""


class NodeKind(Protocol):
    """One kind of node. `spec` is what `parse` made of the node's parameters.

    A token enters a node once. A handler it has no use for can be inherited from `Inert`, which ignores the event.
    """

    def parse(self, params: Mapping[str, Any]) -> Any:
        """Raises one of `UNFIT` or `MessageError` for parameters that are none of this kind."""
        ...

    def enter(self, turn: Turn, id: int, token: Token) -> None: ...

    def on_result(self, turn: Turn, id: int, token: Token, result: ResultMessage) -> None: ...

    def on_started(self, turn: Turn, id: int, token: Token, started: StartedMessage) -> None: ...

    def on_timer(self, turn: Turn, id: int, token: Token) -> None: ...

    def on_signal(self, turn: Turn, id: int, token: Token, slot: str) -> None: ...

    def on_branch_end(self, turn: Turn, frame_id: int, frame: Frame) -> None:
        """The last branch of a frame of this node has ended; its frame is still there."""
        ...


class Inert:
    """Takes no events: a base for kinds that take only some."""

    def on_result(self, turn: Turn, id: int, token: Token, result: ResultMessage) -> None:
        turn.refuse(result.value)

    def on_started(self, turn: Turn, id: int, token: Token, started: StartedMessage) -> None:
        return

    def on_timer(self, turn: Turn, id: int, token: Token) -> None:
        return

    def on_signal(self, turn: Turn, id: int, token: Token, slot: str) -> None:
        return

    def on_branch_end(self, turn: Turn, frame_id: int, frame: Frame) -> None:
        return


@dataclass(frozen=True, slots=True)
class ProgramNode:
    """A node, ready to run. `next` as in the definition."""

    index: int
    name: str
    next: int | None
    kind: NodeKind
    spec: Any


@dataclass(frozen=True, slots=True)
class Program:
    """A definition, ready to run."""

    flow: str
    digest: str
    first: int
    nodes: tuple[ProgramNode, ...]

    def stream(self, node: int) -> str | None:
        """The task stream a node hands out to; None for one that hands nothing out, or is not there."""
        spec = self.nodes[node].spec if 0 <= node < len(self.nodes) else None
        call: TaskCall | None = getattr(spec, "call", None)
        return None if call is None else call.stream

    @classmethod
    def load(cls, definition: Definition, kinds: Mapping[str, NodeKind]) -> Program:
        """Raises `MessageError` for a definition with a node this release does not know."""
        nodes: list[ProgramNode] = []
        for index, node in enumerate(definition.nodes):
            kind = kinds.get(node.kind)
            if kind is None:
                raise MessageError(
                    f"Node {node.name!r} of flow {definition.flow!r} is of kind {node.kind!r}; this orchestrator knows "
                    f"{', '.join(sorted(kinds))}. Deploy orchestrators before workers that use a new kind."
                )
            try:
                spec = kind.parse(node.params)
            except UNFIT as error:
                raise MessageError(
                    f"Node {node.name!r} of flow {definition.flow!r} has wrong parameters for its kind "
                    f"{node.kind!r}: {type(error).__name__} {error}."
                ) from None
            nodes.append(ProgramNode(index, node.name, node.next, kind, spec))
        return cls(definition.flow, definition.digest, definition.first, tuple(nodes))
