"""The pages of docs/reference that are made of the code.

`make docs` writes them, and a test compares them with what it would write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from . import configuration, errors

REFERENCE: Final = Path(__file__).resolve().parents[2] / "docs/reference"


def pages() -> dict[Path, str]:
    """What each of them is to be."""
    return {REFERENCE / "configuration.md": configuration.page(), REFERENCE / "errors.md": errors.page()}
