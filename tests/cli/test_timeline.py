"""Lines of a history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headrace.cli.timeline import details, since
from headrace_broker.queries import HistoryEvent

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(0, "+0.000 s"), (-7, "+0.000 s"), (1250, "+1.250 s"), (59_999, "+59.999 s"), (125_000, "+2 min 5 s")],
)
def test_time_since_the_start(ms: int, shown: str) -> None:
    assert since(START, START + timedelta(milliseconds=ms)) == shown


def test_when_something_is_due_has_milliseconds() -> None:
    due = int(START.timestamp() * 1000) + 250
    text = details(HistoryEvent(START, "retry_scheduled", "charge", {"attempt": 1, "due": due}))
    assert text.endswith(":00.250")
