"""Frames between keeper and child."""

from __future__ import annotations

import socket

import pytest

from headrace_broker import wire
from headrace_workers.pipe import (
    LIMIT,
    Begun,
    Configure,
    Decoder,
    Drain,
    Failed,
    Frame,
    Held,
    KeeperEnd,
    PipeError,
    Ready,
    Report,
    Retire,
    Revoked,
    Worn,
    encode,
)

FRAMES: list[Frame] = [
    Configure('{"url": "redis://"}'),
    Ready(["default"], ["a", "b"], ["default:process"], ["c"]),
    Failed("no such file"),
    Report([Held("{ns:1}:tasks:default", ["1-0", "2-0"], [True, False])], 12),
    Begun("{ns:1}:tasks:default", "2-0"),
    Revoked([(1, "2-0")]),
    Drain(20_000),
    Worn("it has begun 9 of 10 tasks"),
    Retire(),
]


def test_frames_survive_any_cut() -> None:
    data = b"".join(encode(frame) for frame in FRAMES)
    for size in (1, 3, 7, len(data)):
        decoder = Decoder()
        found = [frame for start in range(0, len(data), size) for frame in decoder.feed(data[start : start + size])]
        assert found == FRAMES


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", wire.pack(7), wire.pack([99]), wire.pack([-9]), wire.pack([5, 3]), wire.pack([6])]
)
def test_nonsense_is_a_pipe_error(body: bytes) -> None:
    with pytest.raises(PipeError):
        Decoder().feed(len(body).to_bytes(4, "big") + body)


def test_a_frame_that_claims_to_be_huge_is_refused_before_it_is_read() -> None:
    with pytest.raises(PipeError):
        Decoder().feed((LIMIT + 1).to_bytes(4, "big"))


def test_the_keepers_end_never_blocks_and_notices_the_end() -> None:
    near, far = socket.socketpair()
    end = KeeperEnd(near)
    with far:
        assert end.receive() == []
        frame = Failed("x" * 100_000)
        for _ in range(20):  # more than a socket buffers
            end.send(frame)
        decoder, found = Decoder(), list[Frame]()
        while len(found) < 20:
            found += decoder.feed(far.recv(65536))
            end.flush()
        assert found == [frame] * 20
        far.sendall(encode(Drain(1)))
        assert end.receive() == [Drain(1)]
    assert end.receive() == []
    assert end.closed
    end.send(Drain(1))
    end.close()
