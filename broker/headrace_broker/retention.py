"""How long ended instances are kept: what a flow's author says, and what follows with the orchestrator's rule."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, cast

from .durations import MAX_DURATION_MS, Duration, parse_duration
from .errors import ConfigurationError, InvalidDuration

Forever = Literal["forever"]
FOREVER: Final[Forever] = "forever"
MAX_COUNT: Final = 10**9


@dataclass(frozen=True)
class Rule:
    """What holds for one flow. Times in ms; None keeps for ever, or any number."""

    completed_ms: int | None = 24 * 3_600_000
    failed_ms: int | None = 7 * 24 * 3_600_000
    count: int | None = 100_000


@dataclass(frozen=True)
class Retention:
    """How long a flow's ended instances are kept, by their end: `Flow("orders", retention=Retention(completed="7d"))`.

    `completed` holds for cancelled ones too. `count` bounds all of them; over it the completed go first, the oldest
    first. "forever" keeps; None takes what the orchestrator was told, 24 h, 7 d and 100,000 if nothing.

    Raises `InvalidDuration` and `ConfigurationError`.
    """

    completed: Duration | Forever | None = None
    failed: Duration | Forever | None = None
    count: int | Forever | None = None

    def __post_init__(self) -> None:
        for name in ("completed", "failed"):
            given = getattr(self, name)
            if given is not None and given != FOREVER:
                try:
                    parse_duration(given)
                except InvalidDuration as error:
                    raise InvalidDuration(f'{name}= of a Retention is a duration or "forever". {error}') from None
        if self.count not in (None, FOREVER) and not _is_count(self.count):
            raise ConfigurationError(
                f'count= of a Retention is a whole number up to {MAX_COUNT:,} or "forever"; got {self.count!r}.'
            )

    def over(self, rule: Rule) -> Rule:
        """The rule, with what is said here in its place."""
        return Rule(
            rule.completed_ms if self.completed is None else _milliseconds(self.completed),
            rule.failed_ms if self.failed is None else _milliseconds(self.failed),
            rule.count if self.count is None else _number(self.count),
        )

    def to_text(self) -> str:
        """As it lies in a flow's record; empty if nothing is said. Times in ms, null for ever."""
        said = {
            "completed": None if self.completed is None else [_milliseconds(self.completed)],
            "failed": None if self.failed is None else [_milliseconds(self.failed)],
            "count": None if self.count is None else [_number(self.count)],
        }
        kept = {name: value[0] for name, value in said.items() if value is not None}
        return json.dumps(kept, separators=(",", ":")) if kept else ""

    @classmethod
    def from_text(cls, text: str) -> Retention:
        """What `to_text` made. Of anything else, what can be understood: a newer release may say more."""
        try:
            found: object = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            return cls()
        said = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        known: dict[str, Any] = {}
        for field in fields(cls):
            value = said.get(field.name, ())
            limit = MAX_COUNT if field.name == "count" else MAX_DURATION_MS
            if value is None:
                known[field.name] = FOREVER
            elif type(value) is int and 0 <= value <= limit:
                known[field.name] = value if field.name == "count" else value / 1000
        return cls(**known)


UNSAID: Final = Retention()
DEFAULT_RULE: Final = Rule()


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNT


def _milliseconds(value: Duration | Forever) -> int | None:
    return None if value == FOREVER else parse_duration(value)


def _number(value: int | Forever) -> int | None:
    return None if isinstance(value, str) else value
