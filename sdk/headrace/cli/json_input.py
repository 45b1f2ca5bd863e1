"""JSON that people give to a command."""

from __future__ import annotations

import json
from typing import Any

from headrace_broker.errors import PayloadNotSerializable


def parse_json(text: str) -> Any:
    """Raises `PayloadNotSerializable`, which says what was expected and what came."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise PayloadNotSerializable(f"not JSON: {error}; got {text[:60]!r}.") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")
