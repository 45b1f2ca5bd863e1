"""`python -m headrace.cli`: the command line where no script is installed; how `dev` starts its children."""

from __future__ import annotations

from . import main

main()
