"""The server's clock, as a process knows it."""

from __future__ import annotations

import pytest

from headrace_broker.clock import ServerClock, milliseconds
from headrace_broker.errors import ServerError


class Host:
    """A monotonic clock in the test's hand."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def time_reply(ms: int) -> list[bytes]:
    return [str(ms // 1000).encode(), str(ms % 1000 * 1000 + 999).encode()]


def test_it_goes_on_by_the_monotonic_clock_from_what_the_server_said() -> None:
    host = Host(50.0)
    clock = ServerClock(host)
    assert clock.learn(time_reply(1_700_000_000_123)) == 1_700_000_000_123
    assert clock.now() == 1_700_000_000_123
    host.seconds += 2.5
    assert clock.now() == 1_700_000_002_623


def test_it_takes_half_of_the_way_there_and_back_into_account_if_it_knows_when_it_asked() -> None:
    host = Host(10.0)
    clock = ServerClock(host)
    host.seconds = 10.4
    clock.learn(time_reply(1_000_000), sent=10.0)
    assert clock.now() == 1_000_200
    clock.learn(time_reply(1_000_000))
    assert clock.now() == 1_000_000, "without, it is never ahead"


def test_it_follows_a_server_whose_clock_is_behind_but_not_below_what_was_committed() -> None:
    host = Host(0.0)
    clock = ServerClock(host)
    clock.learn(time_reply(5_000_000))
    clock.not_before(4_000_500)
    clock.not_before(4_000_000)
    clock.learn(time_reply(4_000_000))
    assert clock.now() == 4_000_500
    host.seconds = 1.0
    assert clock.now() == 4_001_000


def test_it_says_nothing_before_it_knows() -> None:
    with pytest.raises(RuntimeError, match="not known yet"):
        ServerClock(Host(0.0)).now()


def test_a_refusal_is_raised() -> None:
    with pytest.raises(ServerError, match="LOADING"):
        milliseconds(ServerError("LOADING Redis is loading the dataset in memory"))
