"""`dev` and its author: the worker starts again when a file of its targets has changed, if that can be loaded.

Instances need no worker to stay; what ran is handed back by the one that stops, and goes on in the next.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .loading import Loaded, load_apart
from .sources import Changes, imported, roots, target_files

if TYPE_CHECKING:
    from .readiness import Readiness

POLL_SECONDS: Final = 0.2


class Reloader:
    """Used by one thread: `run` it once the first worker is up."""

    def __init__(
        self, targets: Sequence[str], restart: Callable[[], None], readiness: Readiness, tell: Callable[[str], None]
    ) -> None:
        """The targets are loaded in this process already. `restart` starts the worker again; `tell` gets lines for the
        person."""
        self._targets = targets
        self._restart = restart
        self._readiness = readiness
        self._tell = tell
        self._changes = Changes(imported(roots(targets)) | target_files(targets))
        self._coming: Loaded | None = None
        self.watches = False
        """From the first `run` on: then a worker that refuses to start is not the end, for a change may mend it."""

    def run(self, stopped: threading.Event) -> None:
        """Until stopped."""
        self.watches = True
        while not stopped.wait(POLL_SECONDS):
            if changed := self._changes.settled(time.monotonic()):
                self._reload(changed, stopped)
            elif self._coming is not None and not self._readiness.missing():
                self._tell(f"{'flows':<13} {', '.join(self._coming.flows) or 'none'}")
                self._coming = None

    def _reload(self, changed: Collection[Path], stopped: threading.Event) -> None:
        found = load_apart(self._targets, stopped)
        if found is None:
            return
        names = _named(changed)
        if found.error is not None:
            self._changes.watch(self._changes.files | found.files)
            self._tell(f"{names:<13} changed, but cannot be loaded: {found.error}")
            self._tell(f"{'worker':<13} stays as it is; the next change is tried again")
            return
        self._changes.watch(found.files)
        self._tell(f"{names:<13} changed; the worker starts again with it")
        self._coming = found
        self._readiness.expect(found.flows, found.tasks)
        self._restart()


def _named(files: Collection[Path]) -> str:
    """Their names for a person; not all, if they are many."""
    names = [file.name for file in files]
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} more"
