"""URLs of servers, for people's eyes."""

from __future__ import annotations

import re
from typing import Final

_USER: Final = re.compile(r"^((?:\w[\w+.-]*://)?+[^:@/?]*):.*@", re.DOTALL)
"""Up to the last @, for a password may hold any character that its author forgot to escape."""
_QUERY: Final = re.compile(r"((?:^|[?&])\w*password=)[^&#]*", re.IGNORECASE)


def shown(url: str) -> str:
    """The URL without its passwords."""
    return _QUERY.sub(r"\1***", _USER.sub(r"\1:***@", url))
