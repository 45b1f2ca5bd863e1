"""Scripts made known to a server before a test.

fakeredis's socket server closes the connection after an error reply, and "no such script" is one; so where a test is
not about that very answer, the scripts are there already.
"""

from __future__ import annotations

from headrace_broker import scripting
from headrace_broker.connection import Server, call

CLIENT_SCRIPTS = ("start", "send", "register", "delete", "forget", "unlist")


def preload(url: str, names: tuple[str, ...] = CLIENT_SCRIPTS) -> None:
    """Loads the scripts of these names."""
    link = Server(url).connect()
    try:
        for name in names:
            call(link, "SCRIPT", "LOAD", scripting.load(name).source)
    finally:
        link.close()
