"""What commands print: data on stdout, as tables or JSON; words about it on stderr. Colours only on a terminal."""

from __future__ import annotations

import dataclasses
import math
import sys
import threading
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal

from rich.console import Console
from rich.text import Text

from headrace_broker.durations import format_duration

STYLES: Final = {
    "completed": "green",
    "running": "cyan",
    "waiting": "yellow",
    "failed": "red",
    "blocked": "red",
    "cancelled": "magenta",
    "cancelling": "magenta",
    "terminated": "magenta",
    "queued": "dim",
}

_LONGEST_INT: Final = 13_000
"""Bits. Python writes no longer number in decimal."""

_writing = threading.Lock()


@cache
def console() -> Console:
    """Stdout. A pipe gets plain text, and tables as wide as they need."""
    terminal = sys.stdout.isatty()
    return Console(highlight=False, markup=False, soft_wrap=not terminal, width=None if terminal else 200)


def print_json(data: object) -> None:
    """One JSON document, in UTF-8, whatever is in it."""
    print(_json(data, indent=2), flush=True)


def print_json_line(data: object) -> None:
    """One line of JSON Lines."""
    print(_json(data), flush=True)


def note(text: str) -> None:
    """A word to the person, on stderr. From any thread: lines stay whole, also beside those of other processes."""
    with _writing:
        sys.stderr.write(f"{text}\n")  # `print` would write the end of the line by itself
        sys.stderr.flush()


def status_text(status: str) -> Text:
    return Text(status, style=STYLES.get(status, ""))


def local_time(when: datetime, to: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """For people, in the zone of this machine."""
    return when.astimezone().replace(tzinfo=None).isoformat(" ", to)


def age(when: datetime, now: datetime | None = None) -> str:
    """How long ago, for people: "5 min 10 s"."""
    return format_duration(max(0, int(((now or datetime.now(UTC)) - when).total_seconds() * 1000)))


def _json(data: object, indent: int | None = None) -> str:
    import json

    from pydantic_core import to_jsonable_python

    plain = to_jsonable_python(_fields(data), fallback=repr, inf_nan_mode="constants", bytes_mode="base64")
    return json.dumps(plain, ensure_ascii=False, indent=indent)


def _fields(data: Any) -> Any:
    """Dataclasses as maps, at any depth, which pydantic_core does not do by itself; what JSON has no number for, as
    text."""
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return {field.name: _fields(getattr(data, field.name)) for field in dataclasses.fields(data)}
    unknown: Any = data
    if isinstance(data, dict):
        return {str(key): _fields(value) for key, value in unknown.items()}
    if isinstance(data, (list, tuple, set, frozenset)):
        return [_fields(item) for item in unknown]
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    if isinstance(data, int) and data.bit_length() > _LONGEST_INT:
        return hex(data)
    return data
