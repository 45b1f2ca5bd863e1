"""A page as a session at a terminal: the files it gives, the commands it types, and what it says they show.

* A `python` block that begins with a comment of a file's name (`# app.py`) is that file.
* In a `console` block `$ …` is typed, `^C` is pressed, and the other lines are shown. `…` stands for anything.
* `<!-- $ … -->` is typed as well, before what follows it; the reader is not told. It sets the scene.
* `<!-- not run: reason -->` before a block: it is not played.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from support.terminal import Person
from support.waiting import wait_until

from .pages import Block, blocks, hidden, not_run

CTRL_C = "^C"
DEADLINE = 60.0
STAYS = re.compile(r"headrace ((dev|orchestrator|worker)\b(?!.*&)|watch$)")
"""What keeps its terminal."""
LOOKERS = re.compile(r"(headrace (show|ls|doctor|quarantine (ls|show))|cat)\b")
"""What changes nothing: it is typed again until it shows what the page says, for a person types slower than we do."""


@dataclass(frozen=True)
class File:
    name: str
    text: str
    line: int


@dataclass(frozen=True)
class Typed:
    """A command, or `CTRL_C`. What is hidden shows what it likes."""

    command: str
    shown: tuple[str, ...]
    line: int
    hidden: bool = False


def steps(page: Path) -> Iterator[File | Typed]:
    """What a page tells its reader to do, in order."""
    scenes = dict(hidden(page))
    skipped = not_run(page)
    for block in blocks(page):
        for line in sorted(number for number in scenes if number < block.line):
            yield Typed(scenes.pop(line), (), line, hidden=True)
        if block.line in skipped:
            continue
        if block.language == "console":
            yield from _typed(block)
        elif block.language == "python" and (named := re.match(r"# ([\w/]+\.py)\n", block.text)):
            yield File(named[1], block.text + "\n", block.line)
    for line, command in sorted(scenes.items()):
        yield Typed(command, (), line, hidden=True)


@dataclass(frozen=True)
class Session:
    """A page that is played. `here` has what differs on this machine from the reader's, as the page writes it."""

    page: Path
    person: Person
    directory: Path
    here: Mapping[str, str]

    def play(self) -> Iterator[tuple[str, str]]:
        """Does it all. Gives each command, as the page has it, and what it has shown: what the page says."""
        for step in steps(self.page):
            if isinstance(step, File):
                (self.directory / step.name).write_text(step.text, "utf-8")
            else:
                yield step.command, self._do(step)

    def _do(self, step: Typed) -> str:
        command = _replaced(step.command, self.here)
        terminal = self.person.press_ctrl_c() if command == CTRL_C else self.person.enter(command)

        def said() -> str:
            return _replaced(terminal.said, {ours: theirs for theirs, ours in self.here.items()})

        def complaint() -> str:
            expected = "\n".join(step.shown)
            where = f"{self.page.name}:{step.line}: {command}"
            return f"{where}\nto show\n{expected}\nand it shows (exit code {terminal.code})\n{said()}"

        def done() -> bool:
            return terminal.code is not None or (STAYS.match(command) is not None and shows(step.shown, said()))

        def seen() -> bool:
            if terminal.code is None:
                return False
            if not shows(step.shown, said()):
                terminal.enter(command)
                return False
            return True

        _wait(done, complaint)
        if LOOKERS.match(command) and not step.hidden:
            _wait(seen, complaint)
        if not step.hidden:
            fails = any(line.startswith(("error", "warning")) for line in step.shown)
            assert shows(step.shown, said()), complaint()
            assert terminal.code in (None, 0) or fails, complaint()
        return said()


def _replaced(text: str, parts: Mapping[str, str]) -> str:
    for old, new in parts.items():
        text = text.replace(old, new)
    return text


def _wait(predicate: Callable[[], bool], complaint: Callable[[], str]) -> None:
    try:
        wait_until(predicate, DEADLINE)
    except AssertionError:
        raise AssertionError(f"waited {DEADLINE:g} s in vain for {complaint()}") from None


def shows(expected: tuple[str, ...], said: str) -> bool:
    """Whether the lines are what was said, but for what differs from run to run."""
    pattern = "".join("(?:.*\n)*?" if line == "…" else f"{_pattern(line)}\n" for line in expected)
    lines = [_alike(line) for line in said.strip("\n").splitlines()]
    return not expected or re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


def _pattern(line: str) -> str:
    return ".*".join(re.escape(part) for part in _alike(line).split("…"))


_ALIKE = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "<time>"),
    (re.compile(r"\b[\w-]+-\d+-[0-9a-f]{8}\.\d+"), "<child>"),
    (re.compile(r"\b[\w.-]+ \(pid \d+\)"), "<process>"),
    (re.compile(r"/\S*/headrace-\w{8}/s\.sock"), "<socket>"),
    (re.compile(r"\bpid \d+"), "<pid>"),
    (re.compile(r"\+\s*\d+\.\d{3} s"), "<after>"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s|min|MB|KB|GB)\b( \d+ (s|min)\b)?"), "<amount>"),
    (re.compile(r"\b\d+:\d{13}-\d+"), "<entry>"),
    (re.compile(r"\b\d{13}-\d+"), "<entry>"),
    (re.compile(r"\s+"), " "),
)


def _alike(line: str) -> str:
    for varying, name in _ALIKE:
        line = varying.sub(name, line)
    return line.strip()


def _typed(block: Block) -> Iterator[Typed]:
    command, shown, begun = "", list[str](), block.line
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ ") or line == CTRL_C:
            if command:
                yield Typed(command, tuple(shown), begun)
            command, shown, begun = line.removeprefix("$ "), [], number
        else:
            shown.append(line)
    if command:
        yield Typed(command, tuple(shown), begun)
