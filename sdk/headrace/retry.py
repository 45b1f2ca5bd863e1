"""When a failed attempt is tried again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, cast

from headrace_broker.definitions import RetrySpec
from headrace_broker.durations import Duration, parse_duration
from headrace_broker.errors import FlowError, HeadraceError, InvalidTask, PayloadError, UnknownRoute

MAX_RETRIES: Final = 10_000
MAX_BACKOFF: Final = 100.0

ErrorTypes = type[BaseException] | tuple[type[BaseException], ...]

_POINTLESS: Final = (FlowError, PayloadError, UnknownRoute)
"""What the same attempt on the same input raises again."""


class RetryAfter(HeadraceError):
    """The task asks for its next attempt after a delay of its own choice.

    It overrules the policy's delay, `retry_on` and `give_up_on`. The number of attempts stays the policy's.

    Raise it in a task that knows better than its policy when to come again.
    """

    code = "retry_after"

    def __init__(self, delay: Duration, message: str | None = None, **ids: str | int | None) -> None:
        """`delay`: seconds, a timedelta, or text such as "30s". Raises `InvalidDuration`."""
        self.delay_ms = parse_duration(delay)
        super().__init__(message if message is not None else f"Try again in {self.delay_ms} ms.", **ids)


class GiveUp(HeadraceError):
    """The task fails for good; its retry policy is not asked.

    Raise it in a task when another attempt would be in vain.
    """

    code = "give_up"


@dataclass(frozen=True)
class RetryPolicy:
    """Attempts = `max_retries` + 1. The delay before retry k is `initial_delay * backoff**(k-1)`, at most `max_delay`,
    then varied by ± `jitter` (a fraction) of itself, so that what failed together does not come back together.

    With `retry_on`, only these errors are tried again; `give_up_on` are not, and goes first. An attempt that timed out
    is tried again whatever they say. Raises `InvalidTask` for values that make no sense.
    """

    max_retries: int = 3
    initial_delay: Duration = 1
    backoff: float = 2.0
    max_delay: Duration = "1h"
    jitter: float = 0.1
    retry_on: ErrorTypes = ()
    give_up_on: ErrorTypes = ()

    def __post_init__(self) -> None:
        _check_whole("max_retries", self.max_retries, MAX_RETRIES)
        _check_number("backoff", self.backoff, 1.0, MAX_BACKOFF)
        _check_number("jitter", self.jitter, 0.0, 1.0)
        parse_duration(self.initial_delay)
        parse_duration(self.max_delay)
        object.__setattr__(self, "retry_on", _error_types("retry_on", self.retry_on))
        object.__setattr__(self, "give_up_on", _error_types("give_up_on", self.give_up_on))

    def spec(self) -> RetrySpec:
        """What the orchestrator needs of it; the error types stay with the worker."""
        return RetrySpec(
            max_retries=self.max_retries,
            initial_ms=parse_duration(self.initial_delay),
            backoff=float(self.backoff),
            max_ms=parse_duration(self.max_delay),
            jitter=float(self.jitter),
        )

    def may_retry(self, error: BaseException) -> bool | None:
        """The control fact that goes with a failure: False forbids a retry, None leaves it to the number of attempts.

        Errors that the same input brings again (a payload that does not validate, a task wrong as written) are not
        tried again, whatever the policy says.
        """
        if isinstance(error, RetryAfter):
            return None
        if isinstance(error, (GiveUp, *_POINTLESS, self.give_up_on)):
            return False
        if self.retry_on and not isinstance(error, self.retry_on):
            return False
        return None


def policy_of(retries: int | RetryPolicy) -> RetryPolicy:
    """`retries=3` is short for three retries, after 1, 2 and 4 seconds. Raises `InvalidTask`."""
    if isinstance(retries, RetryPolicy):
        return retries
    return RetryPolicy(max_retries=retries)


def retry_after_ms(error: BaseException) -> int | None:
    """The delay an error asks for, which overrules the policy's; None if it asks for none."""
    return error.delay_ms if isinstance(error, RetryAfter) else None


def _check_whole(name: str, value: object, limit: int) -> None:
    if type(value) is not int or not 0 <= value <= limit:
        raise InvalidTask(
            f"{name} is a whole number from 0 to {limit} (retries= takes one, or a RetryPolicy); got {value!r}."
        )


def _check_number(name: str, value: object, low: float, high: float) -> None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not usable or not low <= value <= high:  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
        raise InvalidTask(f"{name} of a RetryPolicy is a number from {low:g} to {high:g}; got {value!r}.")


def _error_types(name: str, given: object) -> tuple[type[BaseException], ...]:
    types = cast("tuple[object, ...]", given) if isinstance(given, tuple) else (given,)
    for one in types:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise InvalidTask(f"{name} of a RetryPolicy is an exception class or a tuple of them; got {one!r}.")
    return cast("tuple[type[BaseException], ...]", types)
