"""What flows, tasks, nodes, branches, signals and queues may be called."""

from __future__ import annotations

import re
from typing import Final

from headrace_broker.errors import HeadraceError

LIMIT: Final = 128
"""Characters of a name."""

_NAME: Final = re.compile(rf"\w[\w.-]{{0,{LIMIT - 1}}}")


def check_name(what: str, name: object, error: type[HeadraceError]) -> str:
    """The name itself, if it is one: letters, digits and `_ . -`, first a letter, digit or `_`.

    `/` and `:` are left out because they separate the parts of a node's name and of a key. `what` begins the sentence
    of the error, such as "A task's name".
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise error(
        f"{what} has 1 to {LIMIT} characters: letters, digits and _ . - , and starts with a letter, a digit or _ ; "
        f"got {name!r:.160}."
    )
