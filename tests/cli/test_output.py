"""What is printed as JSON is JSON, whatever a flow returned."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import pytest

from headrace.cli.output import print_json

from .conftest import Headrace


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ([float("nan"), float("inf"), float("-inf")], ["NaN", "Infinity", "-Infinity"]),
        ({"a": {float("nan")}}, {"a": ["NaN"]}),
        (2**200, 2**200),
        (1 << 20_000, hex(1 << 20_000)),
        (-(1 << 20_000), hex(-(1 << 20_000))),
        (b"\xff", "_w=="),
        ({(1, 2): Decimal("NaN"), None: ()}, {"(1, 2)": "NaN", "None": []}),
        (True, True),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_what_json_does_not_have_is_text(given: Any, printed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    print_json(given)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == printed


def test_stdin_that_is_not_utf_8_is_exit_code_2(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'"\xff"'), encoding="utf-8"))
    outcome = headrace("start", "orders", "-i", "-")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: --input -: stdin cannot be read: 'utf-8' codec can't decode byte 0xff")
