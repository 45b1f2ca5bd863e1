"""What is due, as a pure rule: no server, no clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace_broker.retention import Rule
from headrace_orchestrator.sweeping.rule import ASKED, Due, DueOf, Sizes, apportion, due, reason

HOUR = 3_600_000
NOW = 1_800_000_000_000
FOREVER = Rule(None, None, None)

numbers = st.integers(0, 1_000_000)
sizes = st.lists(st.builds(Sizes, numbers, numbers), min_size=1, max_size=64)
rules = st.builds(
    Rule, *(st.none() | st.integers(0, 100 * 366 * 24 * HOUR) for _ in range(2)), st.none() | st.integers(0, 10**9)
)


def test_ages_are_counted_from_now() -> None:
    assert due(Rule(HOUR, 2 * HOUR, None), [Sizes(5, 5)], NOW) == [DueOf(Due(NOW - HOUR, 0), Due(NOW - 2 * HOUR, 0))]


def test_what_is_kept_for_ever_goes_only_when_somebody_asked() -> None:
    assert due(FOREVER, [Sizes(5, 5)], NOW) == [DueOf(Due(ASKED, 0), Due(ASKED, 0))]


def test_over_the_count_completed_ones_go_first() -> None:
    rule = Rule(None, None, 10)
    assert due(rule, [Sizes(8, 7)], NOW) == [DueOf(Due(ASKED, 5), Due(ASKED, 0))]
    assert due(rule, [Sizes(2, 20)], NOW) == [DueOf(Due(ASKED, 2), Due(ASKED, 10))]


def test_the_excess_is_taken_where_most_is() -> None:
    found = due(Rule(None, None, 10), [Sizes(30, 0), Sizes(0, 0), Sizes(10, 0)], NOW)
    assert [part.completed.over for part in found] == [23, 0, 7]


@given(rules, sizes, st.integers(0, 2**45))
def test_exactly_the_count_is_left(rule: Rule, found: list[Sizes], now: int) -> None:
    parts = due(rule, found, now)
    over = sum(part.completed.over + part.failed.over for part in parts)
    total = sum(map(sum, found))
    assert total - over == (total if rule.count is None else min(total, rule.count))
    if any(part.failed.over for part in parts):
        assert [part.completed.over for part in parts] == [size.completed for size in found]


@given(rules, sizes, st.integers(0, 2**45))
def test_nothing_is_due_before_its_time(rule: Rule, found: list[Sizes], now: int) -> None:
    for part in due(rule, found, now):
        for keep, one in ((rule.completed_ms, part.completed), (rule.failed_ms, part.failed)):
            assert one.until == ASKED or (keep is not None and one.until + keep == now)


@given(st.lists(numbers, max_size=64).flatmap(lambda rows: st.tuples(st.integers(0, sum(rows)), st.just(rows))))
def test_shares_are_fair_and_complete(drawn: tuple[int, list[int]]) -> None:
    amount, rows = drawn
    shares = apportion(amount, rows)
    assert sum(shares) == amount
    for share, size in zip(shares, rows, strict=True):
        assert 0 <= share <= size
        assert abs(share * sum(rows) - amount * size) < max(1, sum(rows))


def test_reasons() -> None:
    assert [reason(end, 50) for end in (ASKED, 50, 51)] == ["asked", "age", "count"]
