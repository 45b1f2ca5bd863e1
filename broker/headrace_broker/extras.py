"""Optional packages: what the user types to install them."""

from __future__ import annotations

from typing import Literal

Extra = Literal["embedded", "rq", "otlp", "fast"]
"""The extras of the distribution, in `pyproject.toml`."""


def install_command(*extras: Extra) -> str:
    """The quotes are for the shell, to which brackets are a pattern."""
    return f"pip install 'headrace[{','.join(extras)}]'"
