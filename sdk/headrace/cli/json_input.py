"""JSON that people give to a command."""

from __future__ import annotations

import json
import math
from typing import Any

from headrace_broker.errors import PayloadNotSerializable


def parse_json(text: str) -> Any:
    """Raises `PayloadNotSerializable`, which says what was expected and what came."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise PayloadNotSerializable(f"not JSON: {error}; got {text[:60]!r}.") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is larger than a float can be; carry it as text")
    return number
