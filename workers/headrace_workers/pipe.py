"""What a keeper and its child tell each other, over a Unix socket pair.

A frame is its length (4 bytes, big-endian) and a MessagePack array `[kind, *fields]`. Keeper and child are always of
one release, so frames have no version.

| frame | direction | meaning |
| --- | --- | --- |
| `Configure` | to the child | the first frame: its settings, as JSON |
| `Ready` | to the keeper | user code is loaded, the child serves this |
| `Failed` | to the keeper | user code cannot be loaded |
| `Report` | to the keeper | every lease/6: all entries the child holds; also its heartbeat |
| `Begun` | to the keeper | an entry that a report called "not begun" is about to begin |
| `Worn` | to the keeper | its successor should be started: the child will take no more work soon, or takes none now |
| `Revoked` | to the child | stop these: lost, cancelled or timed out |
| `Retire` | to the child | your successor is ready: take no more, finish, go |
| `Drain` | to the child | take no more, finish within this time, go |

After a `Begun` has been sent, code of the task may run. So an entry that the last word of a dead child called "not
begun" was not begun, and can be returned without counting as a loss.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from headrace_broker import wire
from headrace_broker.errors import MessageError

LIMIT: Final = 64 * 1024 * 1024
_READ = 256 * 1024
_LENGTH = struct.Struct(">I")


class Configure(NamedTuple):
    settings: str


class Ready(NamedTuple):
    """Streams the child reads, tasks it has for them; streams and tasks that only work-horses can serve."""

    streams: list[str]
    tasks: list[str]
    process_streams: list[str]
    process_tasks: list[str]


class Failed(NamedTuple):
    reason: str


class Held(NamedTuple):
    """The entries that a child holds of one stream. `begun` runs along `entries`."""

    key: str
    entries: list[str]
    begun: list[bool]


class Report(NamedTuple):
    """`blocked_ms`: for how long the child's event loop has not answered; the reporter is a thread of its own."""

    held: list[Held]
    blocked_ms: int


class Begun(NamedTuple):
    key: str
    entry: str


class Worn(NamedTuple):
    reason: str


class Revoked(NamedTuple):
    """(partition, entry) of each; entry ids are unique within a partition."""

    entries: list[tuple[int, str]]


class Retire(NamedTuple):
    pass


class Drain(NamedTuple):
    grace_ms: int


Frame = Configure | Ready | Failed | Report | Begun | Revoked | Drain | Worn | Retire

_KINDS: Final[tuple[type[Frame], ...]] = (Configure, Ready, Failed, Report, Begun, Revoked, Drain, Worn, Retire)
_NUMBERS: Final[dict[type[Frame], int]] = {kind: number for number, kind in enumerate(_KINDS)}


class PipeError(Exception):
    """Bytes that are no frame: the other side is not what we think it is."""


def encode(frame: Frame) -> bytes:
    body = wire.pack((_NUMBERS[type(frame)], *frame))
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises `PipeError`."""
        self._buffer += data
        frames: list[Frame] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > LIMIT:
                raise PipeError(f"A frame has at most {LIMIT} bytes; this one claims {length}.")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            frames.append(_decode(bytes(self._buffer[start + _LENGTH.size : end])))
            start = end
        del self._buffer[:start]
        return frames


def _decode(body: bytes) -> Frame:
    try:
        fields: list[Any]
        number, *fields = wire.fields(wire.unpack(body), "a frame", int)
        kind = cast("Callable[..., Frame]", _KINDS[number])
        if kind is Report:
            return Report([Held(*row) for row in fields[0]], fields[1])
        if kind is Revoked:
            return Revoked([(partition, entry) for partition, entry in fields[0]])
        return kind(*fields)
    except (ValueError, TypeError, IndexError, MessageError) as error:
        raise PipeError(f"Not a frame: {body[:40]!r} ({error}).") from None


class KeeperEnd:
    """The keeper's end: never blocks, for a child that does not read must not stop its keeper."""

    def __init__(self, own: socket.socket) -> None:
        own.setblocking(False)
        self._socket = own
        self._decoder = Decoder()
        self._unsent = bytearray()
        self.closed = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> list[Frame]:
        """The frames that have come; notes in `closed` that no more will. Raises `PipeError`."""
        frames: list[Frame] = []
        while not self.closed:
            try:
                data = self._socket.recv(_READ)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if data:
                frames += self._decoder.feed(data)
            else:
                self.closed = True
        return frames

    def send(self, frame: Frame) -> None:
        """Sends as much as fits; the rest at the next `send` or `flush`. A child behind by 64 MiB is given up."""
        if not self.closed:
            self._unsent += encode(frame)
            self.flush()

    def flush(self) -> None:
        try:
            while self._unsent and not self.closed:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            self.closed = len(self._unsent) > LIMIT
        except OSError:
            self.closed = True

    def close(self) -> None:
        self.closed = True
        self._socket.close()
