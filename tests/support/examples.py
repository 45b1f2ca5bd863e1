"""How many examples hypothesis tries: all in a full run, a share of them in a quick one."""

from __future__ import annotations

from hypothesis import settings

from .servers import FULL

_SHARE = 5


def examples(full: int) -> int:
    """`full` of them, or a fifth."""
    return full if FULL else full // _SHARE


def load_profile() -> None:
    """For tests that do not say how many."""
    settings.register_profile("headrace", max_examples=examples(100))
    settings.load_profile("headrace")
