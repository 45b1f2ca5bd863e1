"""Server URLs for people's eyes."""

from __future__ import annotations

import re


def shown(url: str) -> str:
    """The URL for people's eyes: without its password."""
    return re.sub(r"(?<=:)[^:@/]*(?=@)", "***", url)
