"""Route keys on the wire."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Annotated, Literal

import pytest

from headrace import InvalidFlow, task
from headrace.flow import route_key
from headrace.flow.keys import keys_of


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@task
def router(value: int) -> Literal["a", "b"]:
    return "a"


@pytest.mark.parametrize(
    ("result", "key"),
    [
        ("publish", "publish"),
        (Color.RED, "red"),
        (Level.HIGH, "2"),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (None, None),
        ("", None),
        ("x" * 129, None),
        (10**50, None),
        (1.5, None),
        (["a"], None),
    ],
)
def test_what_a_result_is_on_the_wire(result: object, key: str | None) -> None:
    assert route_key(result, router) == key


def test_keys_come_from_the_annotation() -> None:
    @task
    def by_enum(value: int) -> Color:
        return Color.RED

    @task
    async def by_bool(value: int) -> bool:
        return True

    @task
    def by_union(value: int) -> Annotated[Literal["a", 1] | Level, "note"]:
        return "a"

    @task
    def unknown(value: int) -> str:
        return "a"

    @task
    def half_known(value: int) -> Literal["a"] | str:
        return "a"

    assert keys_of(router, None) == ("a", "b")
    assert keys_of(by_enum, None) == ("red", "blue")
    assert keys_of(by_bool, None) == ("true", "false")
    assert keys_of(unknown, ["x", "y"]) == ("x", "y")
    with pytest.raises(InvalidFlow, match="two keys that are both written '1'"):
        keys_of(by_union, None)
    for without in (unknown, half_known):
        with pytest.raises(InvalidFlow, match=r"are unknown\. Annotate"):
            keys_of(without, None)


@pytest.mark.parametrize("keys", [["a\nb"], [""], [None], [1.5], "ab", []])
def test_keys_that_are_none(keys: list[object] | str) -> None:
    with pytest.raises(InvalidFlow):
        keys_of(router, keys)
