"""README and docs as data: their code blocks, their command lines, their links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))

_FENCE = re.compile(r"```(\w*)\s*")
_INLINE = re.compile(r"`(headrace(?: [^`]+)?)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HIDDEN = re.compile(r"<!-- \$ (.+) -->")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_SHELL = re.compile(r" (?:\d?> ?\S+|&(?= |$))")
"""What a command line says to the shell alone: where output goes, and that it runs in the background."""
_TITLE = re.compile(r"#+ (.+)")


@dataclass(frozen=True)
class Block:
    """A fenced block, or an indented one (`language` is then empty). `line` is that of its first line of text."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class CommandLine:
    """`whole` if it can be typed as it is, and not only names a command."""

    arguments: tuple[str, ...]
    line: int
    whole: bool


def name_of(page: Path) -> str:
    """The page's path from the root, for the ids of tests."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """The code blocks of a page, in order."""
    language: str | None = None
    lines: list[str] = []
    start = 0
    for number, line in enumerate([*page.read_text("utf-8").splitlines(), ""], 1):
        fence = _FENCE.fullmatch(line.strip())
        if language is not None:
            if fence is not None and not fence[1]:
                yield Block(language, "\n".join(lines), start)
                language, lines = None, []
            else:
                lines.append(line)
        elif fence is not None:
            language, start = fence[1] or "text", number + 1
        elif line.startswith("    "):
            yield Block("", line[4:], number)


def hidden(page: Path) -> Iterator[tuple[int, str]]:
    """The commands that set a page's scene, with their lines: `<!-- $ … -->`."""
    return _comments(page, _HIDDEN)


def not_run(page: Path) -> dict[int, str]:
    """Why blocks are not run, by the lines of their first text: `<!-- not run: … -->` right before them."""
    return {line + 2: reason for line, reason in _comments(page, _NOT_RUN)}


def _comments(page: Path, kind: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if (found := kind.fullmatch(line.strip())) is not None:
            yield number, found[1]


def commands(page: Path) -> Iterator[CommandLine]:
    """The `headrace …` command lines of a page: in blocks, and in running text."""
    inside: set[int] = set()
    for block in blocks(page):
        count = block.text.count("\n") + 1
        inside |= set(range(block.line, block.line + count))
        if block.language == "console":
            for number, line in enumerate(block.text.splitlines(), block.line):
                for arguments in _typed(line) if line.startswith("$ ") else ():
                    yield CommandLine(arguments, number, True)
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if number not in inside:
            for found in _INLINE.findall(line):
                yield CommandLine(tuple(shlex.split(found.replace("…", ""))[1:]), number, False)


def _typed(line: str) -> Iterator[tuple[str, ...]]:
    """Each `headrace` in a line that somebody types: behind a prompt, a pipe or settings."""
    for part in re.split(r" \| | && ", line.strip().removeprefix("$ ")):
        if not re.match(r"(?:\w+=\S+ )*headrace\b", part):
            continue
        words = shlex.split(_SHELL.sub("", part), comments=True)
        yield tuple(words[words.index("headrace") + 1 :])


def links(page: Path) -> Iterator[str]:
    """Where a page points within the project: `path`, `path#title` or `#title`."""
    return (link for link in _LINK.findall(page.read_text("utf-8")) if "://" not in link)


def anchors(page: Path) -> frozenset[str]:
    """What a link into a page may name, as GitHub makes it from the titles."""
    titles = (_TITLE.fullmatch(line) for line in page.read_text("utf-8").splitlines())
    return frozenset(
        re.sub(r"[^\w\- ]", "", title[1].lower()).replace(" ", "-") for title in titles if title is not None
    )
