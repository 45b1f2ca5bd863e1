"""Durations as people write them, and as Headrace stores them: whole milliseconds.

* a number: seconds
* a timedelta
* text: "250ms" "30s" "5m" "2h" "7d", fractions ("1.5h") and sums ("1h30m", "1h 30m")
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from .errors import InvalidDuration

Duration = float | int | timedelta | str

MAX_DURATION_MS: Final = 100 * 365 * 24 * 3600 * 1000
"""100 years. A longer one is a mistake in the unit, not a wish."""

_UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?(ms|s|m|h|d)", re.ASCII)
_TEXT: Final = re.compile(rf"{_PART.pattern}(?: ?{_PART.pattern})*", re.ASCII)
_EXPECTED: Final = 'A duration is seconds, a timedelta, or text like "250ms", "30s", "5m", "2h", "7d" or "1h30m"'


def parse_duration(value: Duration) -> int:
    """`value` in milliseconds, rounded; what is above zero stays above zero.

    Raises `InvalidDuration` for anything else than a `Duration` between 0 and 100 years.
    """
    exact = _milliseconds(value)
    if exact < 0:
        raise InvalidDuration(f"A duration is not negative; got {_short(value)}.")
    if exact > MAX_DURATION_MS:
        raise InvalidDuration(f"A duration is at most 100 years; got {_short(value)}. Is the unit right?")
    return max(int(exact.to_integral_value(ROUND_HALF_UP)), 1 if exact else 0)


def format_duration(ms: int) -> str:
    """`ms` milliseconds for people, in one or two units: "250 ms", "1.5 s", "5 min 10 s", "2 h 5 min"."""
    if ms < 0:
        return f"-{format_duration(-ms)}"
    if ms < 1000:
        return f"{ms} ms"
    tenths = (ms + 50) // 100
    if tenths < 600:
        return f"{tenths // 10} s" if tenths % 10 == 0 else f"{tenths / 10:.1f} s"
    seconds = (ms + 500) // 1000
    if seconds < 3600:
        return _two(seconds, 60, "min", "s")
    minutes = (seconds + 30) // 60
    if minutes < 24 * 60:
        return _two(minutes, 60, "h", "min")
    return _two((minutes + 30) // 60, 24, "d", "h")


def _milliseconds(value: object) -> Decimal:
    if isinstance(value, timedelta):
        return Decimal(value // timedelta(microseconds=1)) / 1000
    if isinstance(value, str):
        return _text_milliseconds(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidDuration(f"{_EXPECTED}; got {_short(value)}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidDuration(f"A duration is finite; got {_short(value)}. Leave it out to wait without end.")
    if abs(value) > MAX_DURATION_MS:  # before any arithmetic on an integer of a million digits
        return Decimal(MAX_DURATION_MS + 1) * (1 if value > 0 else -1)
    return Decimal(str(value)) * 1000


def _text_milliseconds(text: str) -> Decimal:
    stripped = text.strip()
    if len(stripped) > 100 or not _TEXT.fullmatch(stripped):
        hint = f' Did you mean "{stripped}s"?' if re.fullmatch(r"[0-9]{1,9}", stripped, re.ASCII) else ""
        raise InvalidDuration(f"{_EXPECTED}; got {_short(text)}.{hint}")
    return sum((Decimal(number) * _UNITS[unit] for number, unit in _PART.findall(stripped)), Decimal(0))


def _two(amount: int, ratio: int, big: str, small: str) -> str:
    whole, rest = divmod(amount, ratio)
    return f"{whole} {big} {rest} {small}" if rest else f"{whole} {big}"


def _short(value: object) -> str:
    if isinstance(value, int) and abs(value) > 10**18:
        return "an integer above 10**18" if value > 0 else "an integer below -10**18"
    text = value if isinstance(value, str) else str(value) if isinstance(value, timedelta) else None
    shown = repr(text[:40]) if text is not None else repr(value)[:40]
    return f"{type(value).__name__} {shown}"
