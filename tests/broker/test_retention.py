"""What a flow's author may say of retention, how it is stored, and what it means with the orchestrator's rule."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_broker.durations import MAX_DURATION_MS
from headrace_broker.errors import ConfigurationError, HeadraceError, InvalidDuration
from headrace_broker.retention import MAX_COUNT, Retention, Rule

DEFAULT = Rule()
times = st.none() | st.just("forever") | st.integers(0, MAX_DURATION_MS).map(lambda ms: timedelta(milliseconds=ms))
counts = st.none() | st.just("forever") | st.integers(0, MAX_COUNT)
retentions = st.builds(Retention, times, times, counts)
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


def test_what_is_not_said_is_the_orchestrators() -> None:
    assert Retention().over(DEFAULT) == DEFAULT == Rule(24 * 3_600_000, 7 * 24 * 3_600_000, 100_000)
    assert Retention(failed="1h").over(DEFAULT) == Rule(DEFAULT.completed_ms, 3_600_000, DEFAULT.count)
    assert Retention(completed=0, count=0).over(DEFAULT) == Rule(0, DEFAULT.failed_ms, 0)


def test_forever_keeps() -> None:
    assert Retention("forever", "forever", "forever").over(DEFAULT) == Rule(None, None, None)


@given(retentions)
def test_it_means_the_same_after_it_was_stored(retention: Retention) -> None:
    again = Retention.from_text(retention.to_text())
    for default in (DEFAULT, Rule(None, None, None), Rule(1, 2, 3)):
        assert again.over(default) == retention.over(default)


def test_nothing_said_is_stored_as_nothing() -> None:
    assert Retention().to_text() == ""
    assert Retention("24h", "forever", 5).to_text() == '{"completed":86400000,"failed":null,"count":5}'


@given(st.text() | json_like.map(json.dumps))
def test_strange_text_says_what_can_be_understood(text: str) -> None:
    Retention.from_text(text).over(DEFAULT)


def test_what_a_newer_release_says_is_passed_over() -> None:
    assert Retention.from_text('{"completed": "soon", "count": 7, "labels": {}}').over(DEFAULT).count == 7


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"completed": "never"}, 'completed= of a Retention is a duration or "forever". A duration is'),
        ({"failed": -1}, "failed= of a Retention"),
        ({"count": -1}, "count= of a Retention is a whole number up to 1,000,000,000"),
        ({"count": True}, "count= of a Retention"),
        ({"count": 1.5}, "count= of a Retention"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(HeadraceError) as refused:
        Retention(**arguments)
    assert complaint in str(refused.value)
    assert isinstance(refused.value, (InvalidDuration, ConfigurationError))
