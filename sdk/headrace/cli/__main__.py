"""`python -m headrace.cli`: the command line where no script is installed; how `dev` starts its children."""

from __future__ import annotations

from . import main

try:
    main()
finally:
    # After an interrupt that passed through exec(), as in the making of a dataclass, CPython ends `python -m` by SIGINT
    # whatever the exit code, until the next exec().
    exec("")
