"""Identifiers: what a user may choose, and what Headrace makes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_broker.errors import InvalidInstanceId, MessageError
from headrace_broker.ids import (
    INSTANCE_ID_LIMIT,
    DispatchId,
    check_instance_id,
    entry_of,
    new_incarnation,
    new_request_id,
)


@pytest.mark.parametrize(
    "instance",
    ["x", " ", "order 17", "a:b", "{tag}", "größe-名前-🚰", "*?[", "../..", "x" * 256, "ä" * 128, "🚰" * 64, "0", '"'],
)
def test_an_instance_id(instance: str) -> None:
    assert check_instance_id(instance) is instance


@pytest.mark.parametrize(
    ("instance", "complaint"),
    [
        ("", "1 to 256 bytes; got 0"),
        ("x" * 257, "got 257. Use a shorter id"),
        ("ä" * 129, "got 258"),
        ("🚰" * 65, "got 260"),
        ("a\nb", "no control"),
        ("\x00", "no control"),
        ("a\x7f", "no control"),
        ("a\u2028b", "no control"),
        ("zero\u200bwidth", "no control"),
        ("\ud800", "valid Unicode"),
        (None, "is a string; got NoneType"),
        (17, "is a string; got int"),
        (b"x", "is a string; got bytes"),
    ],
)
def test_not_an_instance_id(instance: object, complaint: str) -> None:
    with pytest.raises(InvalidInstanceId, match=re.escape(complaint)):
        check_instance_id(instance)


@given(st.text(st.characters(), max_size=300))
@settings(deadline=None)
def test_any_text_is_an_id_or_refused(text: str) -> None:
    try:
        instance = check_instance_id(text)
    except InvalidInstanceId:
        return
    assert 1 <= len(instance.encode()) <= INSTANCE_ID_LIMIT
    assert "\n" not in instance


def test_made_ids_are_short_and_differ() -> None:
    for make, length in ((new_incarnation, 12), (new_request_id, 16)):
        made = {make() for _ in range(1000)}
        assert len(made) == 1000
        assert all(re.fullmatch(rf"[A-Za-z0-9_-]{{{length}}}", text) for text in made)


naturals = st.integers(0, 2**63)


@given(naturals, st.from_regex(r"[0-9a-f]{1,40}", fullmatch=True), naturals, naturals)
@settings(deadline=None)
def test_a_dispatch_id_round_trips(partition: int, token: str, commit: int, number: int) -> None:
    made = DispatchId(partition, token, commit, number)
    assert DispatchId.parse(str(made)) == made
    assert re.fullmatch(r"[A-Za-z0-9_-]+", str(made)), "RQ's rule for the ids of jobs"
    assert made.entry == f"{commit}-{number}"


def test_a_dispatch_id_is_pinned() -> None:
    assert str(DispatchId(2, "1f0a9b", 12, 3)) == "2-1f0a9b-12-3"


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "---", "2-1f-12", "2-1f-12-3-4", "x-1f-12-3", "2--12-3", "2-1f-x-3", "2-1f-12-x", "2-1f-12-"),
        *(" 2-1f-12-3", "2-1f-12-3\n", "2-1f-1_2-3", "02-1f-12-3", "2-1f-012-3", "+2-1f-12-3", "٢-1f-12-3"),
        *("2-1 f-12-3", "2-1:f-12-3", "2-1f-" + "9" * 5000 + "-3"),
    ],
)
def test_not_a_dispatch_id(text: str) -> None:
    with pytest.raises(MessageError) as caught:
        DispatchId.parse(text)
    assert len(str(caught.value)) < 200


def test_the_entry_of_an_id_of_ours_is_what_parsing_it_says() -> None:
    dispatch = DispatchId(3, "2fe0", 1_000_000_000_000_007, 11)

    assert entry_of(str(dispatch)) == dispatch.entry == "1000000000000007-11"
