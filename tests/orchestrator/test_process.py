"""The orchestrator's process: what it says while there is no server."""

from __future__ import annotations

import logging

import pytest

from headrace_broker.errors import ServerUnreachable
from headrace_orchestrator import process


def test_it_says_for_what_it_waits_once_and_then_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr("headrace_orchestrator.process.time.monotonic", lambda: now)
    complaint = process._Complaint()  # pyright: ignore[reportPrivateUsage]
    said: list[int] = []
    with caplog.at_level(logging.WARNING, process.log.name):
        for _ in range(25):
            complaint.say(ServerUnreachable("It is away."))
            said.append(len(caplog.records))
            now += 1
        assert (said[0], said[9], said[10], said[19], said[24]) == (1, 1, 2, 2, 3)
        complaint.over()
        complaint.say(ServerUnreachable("It is away again."))
    assert caplog.messages[-1] == "Waiting for the server: It is away again."
