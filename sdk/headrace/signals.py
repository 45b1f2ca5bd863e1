"""Signals: named messages from outside that an instance waits for."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from headrace_broker.errors import InvalidFlow

from .names import check_name

Payload = TypeVar("Payload")


class Signal(Generic[Payload]):
    """A name and the type of what it carries, shared by the flow that waits and the client that sends.

        approval = Signal("approval", Approval)

    `payload_type` is `Any` for a signal that carries anything, or nothing. Two signals are equal if both parts are.
    Raises `InvalidFlow` for a name that is none.
    """

    def __init__(self, name: str, payload_type: type[Payload]) -> None:
        self.name = check_name("A signal's name", name, InvalidFlow)
        self.payload_type: Any = payload_type

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Signal):
            return NotImplemented
        return bool(self.name == other.name and self.payload_type == other.payload_type)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"Signal({self.name!r}, {getattr(self.payload_type, '__name__', self.payload_type)})"
