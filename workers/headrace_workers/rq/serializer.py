"""What RQ keeps of a job is MessagePack, never pickle (invariant 9).

rq worker --serializer headrace_workers.rq.serializer.MessagePack …
"""

from __future__ import annotations

from typing import Any

from headrace_broker import wire


class MessagePack:
    """RQ's `Serializer` protocol. Tuples come back as lists, which RQ takes for a job's arguments."""

    @staticmethod
    def dumps(value: Any, /) -> bytes:
        return wire.pack(value)

    @staticmethod
    def loads(data: bytes, /) -> Any:
        return wire.unpack(data)
