"""The plain run that the demo is compared with: the same functions, in one process, without Headrace.

`python -m headrace.demo.plain FILE MODULES` writes one line of facts a module. It gives way to the demo's processes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from .modules import choose, measure, standard_library


def main(file: Path, number: int) -> None:
    with contextlib.suppress(OSError):
        os.nice(10)
    with file.open("w", encoding="utf-8") as lines:
        for module in choose(standard_library(), number):
            lines.write(measure(module).to_json() + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
