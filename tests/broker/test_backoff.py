"""Waiting: how long, and what is said of it."""

from __future__ import annotations

import logging
from random import Random

import pytest

from headrace_broker.backoff import Backoff, Waiting
from headrace_broker.errors import ServerUnreachable

LOG = logging.getLogger("headrace.test")


class Chance(Random):
    """One that always draws the same."""

    def __init__(self, drawn: float) -> None:
        super().__init__()
        self._drawn = drawn

    def random(self) -> float:
        return self._drawn


@pytest.mark.parametrize(("drawn", "part"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_each_wait_is_twice_the_last_up_to_the_cap_and_varied(drawn: float, part: float) -> None:
    backoff = Backoff(Chance(drawn), first=0.1, cap=1.0)
    assert [backoff.next() for _ in range(6)] == pytest.approx([part * whole for whole in (0.1, 0.2, 0.4, 0.8, 1, 1)])
    assert backoff.failures == 6


def test_it_begins_anew_after_a_success() -> None:
    backoff = Backoff(Chance(1.0), first=0.1, cap=1.0)
    for _ in range(3):
        backoff.next()
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.next() == pytest.approx(0.1)


def test_any_number_of_failures_is_borne() -> None:
    backoff = Backoff(Chance(1.0))
    backoff.failures = 1_000_000
    assert backoff.next() == pytest.approx(2.0)


def test_it_says_for_what_it_waits_once_and_then_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    waiting = Waiting(LOG, monotonic=lambda: now)
    said: list[int] = []
    with caplog.at_level(logging.WARNING, LOG.name):
        for _ in range(25):
            waiting.say(ServerUnreachable("It is away."))
            said.append(len(caplog.records))
            now += 1
        assert (said[0], said[9], said[10], said[19], said[24]) == (1, 1, 2, 2, 3)
        waiting.over()
        waiting.say(ServerUnreachable("It is away again."))
    assert caplog.messages[-1] == "Waiting for the server: It is away again."
