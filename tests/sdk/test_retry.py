"""Retry policies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headrace import GiveUp, InvalidTask, RetryAfter, RetryPolicy
from headrace.errors import HeadraceError, InvalidDuration, PayloadMismatch
from headrace.retry import policy_of, retry_after_ms
from headrace_broker.definitions import RetrySpec


def test_a_number_is_short_for_one_second_times_two() -> None:
    assert policy_of(3) == RetryPolicy(max_retries=3)
    assert policy_of(3).spec() == RetrySpec(3, 1000, 2.0, 3_600_000, 0.1)


def test_the_spec_has_milliseconds() -> None:
    policy = RetryPolicy(5, initial_delay="250ms", backoff=3, max_delay="5m", jitter=0)
    assert policy.spec() == RetrySpec(5, 250, 3.0, 300_000, 0.0)


def test_without_types_the_number_decides() -> None:
    assert RetryPolicy().may_retry(ValueError()) is None


def test_retry_on_forbids_the_others() -> None:
    policy = RetryPolicy(retry_on=OSError)
    assert policy.retry_on == (OSError,)
    assert policy.may_retry(ConnectionError()) is None
    assert policy.may_retry(ValueError()) is False


def test_give_up_on_goes_first() -> None:
    policy = RetryPolicy(retry_on=OSError, give_up_on=(FileNotFoundError, KeyError))
    assert policy.may_retry(FileNotFoundError()) is False
    assert policy.may_retry(PermissionError()) is None


def test_give_up_and_retry_after_overrule_the_types() -> None:
    policy = RetryPolicy(retry_on=OSError)
    assert policy.may_retry(GiveUp("no such customer")) is False
    assert policy.may_retry(RetryAfter("90s")) is None
    assert RetryPolicy(retry_on=HeadraceError).may_retry(GiveUp()) is False
    assert retry_after_ms(RetryAfter("90s")) == 90_000
    assert retry_after_ms(ValueError()) is None


def test_what_the_same_input_brings_again_is_not_tried_again() -> None:
    assert RetryPolicy(retry_on=Exception).may_retry(PayloadMismatch("no")) is False


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RetryPolicy(max_retries=-1), "max_retries is a whole number"),
        (lambda: RetryPolicy(max_retries=1.5), "got 1.5"),  # type: ignore[arg-type]
        (lambda: RetryPolicy(backoff=0.5), "backoff of a RetryPolicy is a number from 1 to 100; got 0.5"),
        (lambda: RetryPolicy(backoff=float("nan")), "got nan"),
        (lambda: RetryPolicy(jitter=2), "jitter of a RetryPolicy is a number from 0 to 1; got 2"),
        (lambda: RetryPolicy(jitter="a"), "got 'a'"),  # type: ignore[arg-type]
        (lambda: RetryPolicy(retry_on=("OSError",)), "retry_on .* exception class"),  # type: ignore[arg-type]
        (lambda: RetryPolicy(give_up_on=int), "give_up_on .* got <class 'int'>"),  # type: ignore[arg-type]
    ],
)
def test_a_policy_that_makes_no_sense(make: Callable[[], RetryPolicy], says: str) -> None:
    with pytest.raises(InvalidTask, match=says):
        make()


def test_delays_are_durations() -> None:
    with pytest.raises(InvalidDuration):
        RetryPolicy(initial_delay="soon")
    with pytest.raises(InvalidDuration):
        RetryAfter(-1)
