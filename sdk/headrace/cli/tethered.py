"""Runs a command that dies when its parent does: `python tethered.py PARENT COMMAND…`, for `supervisor`.

The wish has to be uttered in the child itself; between fork and exec nothing is safe in a process with threads. It
survives the exec. Outside Linux there is no such wish, and the command is run without. Only the standard library, for
this runs isolated and has to be quick.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the wish
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
