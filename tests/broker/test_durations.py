from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_broker.durations import MAX_DURATION_MS, Duration, format_duration, parse_duration
from headrace_broker.errors import InvalidDuration


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (0, 0),
        (30, 30_000),
        (0.25, 250),
        (0.1 + 0.2, 300),
        (timedelta(minutes=2, microseconds=1500), 120_002),
        ("0s", 0),
        ("250ms", 250),
        ("30s", 30_000),
        ("5m", 300_000),
        ("2h", 7_200_000),
        ("7d", 604_800_000),
        ("1.5h", 5_400_000),
        ("1h30m", 5_400_000),
        (" 1h 30m 5s ", 5_405_000),
        ("30 s", 30_000),
        ("36500d", MAX_DURATION_MS),
    ],
)
def test_a_duration_becomes_milliseconds(value: Duration, ms: int) -> None:
    assert parse_duration(value) == ms


@pytest.mark.parametrize("value", [1e-9, 0.0004, "0.1ms", timedelta(microseconds=1)])
def test_a_duration_above_zero_never_becomes_zero(value: Duration) -> None:
    assert parse_duration(value) == 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-1, "not negative"),
        (-(10**5000), "not negative"),
        (timedelta(seconds=-1), "not negative"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (float("-inf"), "finite"),
        (True, "got bool True"),
        (None, "got NoneType None"),
        ([30], "got list"),
        (b"30s", "got bytes"),
        (10**5000, "at most 100 years"),
        (1e300, "at most 100 years"),
        (timedelta.max, "at most 100 years"),
        ("36501d", "at most 100 years"),
        ("30", 'Did you mean "30s"?'),
        ("", "got str ''"),
        ("-5s", "got str '-5s'"),
        ("5 years", "got str '5 years'"),
        ("1e3s", "got str"),
        ("1_000s", "got str"),
        ("٣s", "got str"),
        ("5s!", "got str"),
        (".5s", "got str"),
        ("9" * 1_000_000, "got str"),
        ("1s" * 500_000, "got str"),
    ],
    ids=lambda value: repr(value)[:20] if not isinstance(value, int) else type(value).__name__,
)
def test_what_is_no_duration_is_refused_with_what_came(value: Any, said: str) -> None:
    with pytest.raises(InvalidDuration) as caught:
        parse_duration(value)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1 s"),
        (1500, "1.5 s"),
        (1549, "1.5 s"),
        (59_949, "59.9 s"),
        (59_950, "1 min"),
        (65_000, "1 min 5 s"),
        (3_599_499, "59 min 59 s"),
        (3_599_500, "1 h"),
        (7_500_000, "2 h 5 min"),
        (86_399_999, "1 d"),
        (604_800_000, "7 d"),
        (608_400_000, "7 d 1 h"),
        (-1500, "-1.5 s"),
    ],
)
def test_milliseconds_are_written_for_people_in_two_units(ms: int, text: str) -> None:
    assert format_duration(ms) == text


@given(st.integers(0, MAX_DURATION_MS))
def test_all_ways_to_write_a_duration_agree(ms: int) -> None:
    assert parse_duration(f"{ms}ms") == parse_duration(timedelta(milliseconds=ms)) == parse_duration(ms / 1000) == ms
    assert parse_duration(f"{ms // 1000}s{ms % 1000}ms") == ms


@given(st.integers(0, MAX_DURATION_MS))
def test_what_is_written_for_people_is_within_five_percent(ms: int) -> None:
    read_back = parse_duration(format_duration(ms).replace("min", "m"))
    assert abs(read_back - ms) <= 0.05 * ms


@given(st.one_of(st.text(), st.floats(), st.integers(), st.timedeltas(), st.booleans()))
def test_any_input_gives_milliseconds_in_range_or_invalid_duration(value: Any) -> None:
    try:
        ms = parse_duration(value)
    except InvalidDuration:
        return
    assert 0 <= ms <= MAX_DURATION_MS
