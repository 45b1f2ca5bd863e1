"""The files of the author's that targets are made of, and whether they changed.

They are known by importing, so no tree of directories is watched, and what a flow does not import starts nothing. What
is asked for is a file's stamp, a few times a second: dozens of files cost microseconds, and mounted volumes, which tell
nobody of their changes, are no exception (ADR 5).
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

QUIET_SECONDS: Final = 0.2
"""Without a further change, after which a change counts: an editor writes in steps, a checkout many files."""

_PACKAGES: Final = frozenset(("site-packages", "dist-packages"))


class Stamp(NamedTuple):
    """What differs when a file was written, or another put in its place."""

    modified: int
    size: int
    inode: int


class Changes:
    """Looks at files, which need not exist, for changes that have settled. Time is the caller's, in seconds."""

    def __init__(self, files: Collection[Path]) -> None:
        self._told: Mapping[Path, Stamp | None] = _stamps(files)
        self._last = self._told
        self._moved = 0.0

    @property
    def files(self) -> frozenset[Path]:
        return frozenset(self._told)

    def watch(self, files: Collection[Path]) -> None:
        """These from now on. What has happened since to one that was watched before is not forgotten."""
        fresh = _stamps(files)
        self._told = {file: self._told.get(file, stamp) for file, stamp in fresh.items()}
        self._last = {file: self._last.get(file, stamp) for file, stamp in fresh.items()}

    def settled(self, now: float) -> list[Path]:
        """The files that changed since they were last told, once nothing has changed for a while; each change once."""
        current = _stamps(self._told)
        if current != self._last:
            self._last = current
            self._moved = now
        if current == self._told or now - self._moved < QUIET_SECONDS:
            return []
        changed = [file for file, stamp in current.items() if stamp != self._told[file]]
        self._told = current
        return sorted(changed)


def roots(targets: Iterable[str]) -> frozenset[Path]:
    """Where the author's files lie: this directory, and those of targets that are files."""
    places = (target.partition(":")[0] for target in targets)
    files = (Path(place).expanduser().resolve().parent for place in places if place.endswith(".py"))
    return frozenset((Path.cwd(), *files))


def imported(below: Collection[Path]) -> frozenset[Path]:
    """The files of all modules imported so far that lie below these directories, but for installed packages."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return _ours((file for file in files if isinstance(file, str)), below)


def blamed(error: BaseException, below: Collection[Path]) -> frozenset[Path]:
    """The files whose change may mend an error of an import: those it names, and those it did not find."""
    return _ours((file for cause in _causes(error) for file in _named(cause, below)), below)


def target_files(targets: Iterable[str]) -> frozenset[Path]:
    """The files that targets name, there or not."""
    places = (target.partition(":")[0] for target in targets)
    return frozenset(Path(place).expanduser().resolve() for place in places if place.endswith(".py"))


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _named(error: BaseException, below: Collection[Path]) -> Iterator[str]:
    for frame in traceback.extract_tb(error.__traceback__):
        yield frame.filename
    if isinstance(error, SyntaxError) and error.filename:
        yield error.filename
    if isinstance(error, ImportError) and error.name:
        path = Path(*error.name.split("."))
        for root in below:
            yield str(root / path.with_suffix(".py"))
            yield str(root / path / "__init__.py")


def _ours(files: Iterable[str], below: Collection[Path]) -> frozenset[Path]:
    installed = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    found: set[Path] = set()
    for file in files:
        path = Path(os.path.abspath(file))
        if any(path.is_relative_to(one) for one in installed):
            continue
        inside = [path.relative_to(root) for root in below if path.is_relative_to(root)]
        if inside and not any(_PACKAGES & set(relative.parts) for relative in inside):
            found.add(path)
    return frozenset(found)


def _stamps(files: Iterable[Path]) -> Mapping[Path, Stamp | None]:
    return {file: _stamp(file) for file in files}


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return Stamp(found.st_mtime_ns, found.st_size, found.st_ino)
