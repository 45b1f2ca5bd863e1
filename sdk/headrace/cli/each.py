"""`headrace start FLOW --each FILE`: an instance for each line of a file of JSON Lines."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import sys
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal, cast

from headrace_broker.errors import (
    ConfigurationError,
    InvalidInstanceId,
    PayloadError,
    PayloadMismatch,
    PayloadNotSerializable,
    ServerUnreachable,
)

from .json_input import parse_json
from .output import note, print_json_line

if TYPE_CHECKING:
    from headrace.bulk import Start, StartAnswer
    from headrace.client import Client
    from headrace.flow import Flow
    from headrace.starting import Manner, Startable

_SHOWN: Final = 5
"""Bad lines named in an error; there may be a million."""
_PLACE: Final = re.compile(r"\{([^{}]*)\}")
_YIELD_EVERY: Final = 1000
_IN_MEMORY: Final = 1 << 20
"""Bytes of stdin kept in memory; more goes to a temporary file."""


@dataclass(frozen=True)
class Line:
    """What one line asks for. `number` counts from 1."""

    number: int
    start: Start[Any]


class Lines:
    """The lines of a file, read as often as they are asked for; blank ones are skipped."""

    def __init__(self, file: IO[bytes], id_template: str | None) -> None:
        self._file = file
        self._template = id_template

    def read(self, complain: Callable[[int, Exception], None] | None = None) -> Iterator[Line]:
        """Those that can be read; the others are complained of, or raise `PayloadError` or `InvalidInstanceId`."""
        from headrace.bulk import Start

        self._file.seek(0)
        for number, data in enumerate(self._file, 1):
            if not data.strip():
                continue
            try:
                value = parse_json(_text(data, number))
                yield Line(number, Start(value, None if self._template is None else self._id(value, number)))
            except (PayloadError, InvalidInstanceId) as error:
                if complain is None:
                    raise
                complain(number, error)

    def _id(self, value: Any, number: int) -> str:
        def fill(place: re.Match[str]) -> str:
            name = place[1]
            if name == "#":
                return str(number)
            found: Any = cast(Any, value).get(name) if isinstance(value, dict) else None
            if isinstance(found, bool) or not isinstance(found, str | int):
                raise InvalidInstanceId(f"--id has {place[0]}, but the input has no text or whole number {name!r}.")
            return str(found)

        return _PLACE.sub(fill, self._template or "")


@dataclass(frozen=True)
class EachLine:
    """The command's work. `source` is a path or `-` for stdin."""

    source: str
    flow: Flow[Any, Any] | str
    id_template: str | None
    manner: Manner
    as_json: bool

    def __post_init__(self) -> None:
        if self.id_template is not None and not _PLACE.search(self.id_template):
            raise ConfigurationError(
                "With --each, --id is made of each input: 'order-{id}' takes its field id, and {#} is the line's "
                f"number; got {self.id_template!r}, which is the same for all."
            )

    async def run(self, client: Client) -> bool:
        """Checks all lines; if none is bad, starts them. True if none was refused.

        Raises `ConfigurationError` and `PayloadError` with nothing started, and what `Client.start_many` raises.
        """
        with _opened(self.source) as file:
            lines = Lines(file, self.id_template)
            count = await self._check(lines, await client.flow_store.startable(self.flow))
            return await self._start(client, lines, count)

    async def _check(self, lines: Lines, what: Startable) -> int:
        """How many lines there are. Raises `PayloadMismatch` that names the first bad ones."""
        complaints: list[str] = []
        bad = count = 0

        def complain(number: int, error: Exception) -> None:
            nonlocal bad
            bad += 1
            if bad <= _SHOWN:
                complaints.append(f"line {number}: {error}")

        for line in lines.read(complain):
            count += 1
            if count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)  # so that Ctrl-C gets in
            try:
                what.request(line.start.input, line.start.id, self.manner)
            except (PayloadError, InvalidInstanceId) as error:
                complain(line.number, error)
        if not bad:
            return count
        if bad > _SHOWN:
            complaints.append(f"and {bad - _SHOWN:,} more")
        name = "stdin" if self.source == "-" else self.source
        refusal = PayloadMismatch(f"{name}: {bad:,} bad line{'s' if bad > 1 else ''}; nothing was started.")
        refusal.add_note("\n".join(complaints))
        raise refusal

    async def _start(self, client: Client, lines: Lines, count: int) -> bool:
        numbers: deque[int] = deque()
        tally: Counter[str] = Counter(started=0, existing=0, refused=0)

        def inputs() -> Iterator[Start[Any]]:
            for line in lines.read():
                numbers.append(line.number)
                yield line.start

        manner = self.manner
        answers = client.start_many(
            cast(Any, self.flow), inputs(), conflict=manner.conflict, actor=manner.actor, traceparent=manner.traceparent
        )
        try:
            with _progress(count) as advance:
                async for answer in answers:
                    tally[self._tell(numbers.popleft(), answer)] += 1
                    advance()
        except (ServerUnreachable, asyncio.CancelledError):
            note(
                f"{tally.total():,} of {count:,} lines were answered; some that follow may have been started. "
                "With --id and --conflict use_existing the whole file can be given again."
            )
            raise
        if not self.as_json:
            said = [f"{number:,} {word}" for word, number in tally.items() if number or word == "started"]
            print(", ".join(said), flush=True)
        return not tally["refused"]

    def _tell(self, number: int, answer: StartAnswer[Any]) -> Literal["started", "existing", "refused"]:
        about: dict[str, Any] = {"line": number, "id": answer.id}
        if answer.error is not None:
            about["error"] = {"code": answer.error.code, "message": str(answer.error)}
            if not self.as_json:
                note(f"line {number}: {answer.error}")
        else:
            about |= {"incarnation": answer.handle.incarnation, "existing": answer.existing}
        if self.as_json:
            print_json_line(about)
        return "refused" if answer.error is not None else "existing" if answer.existing else "started"


@contextlib.contextmanager
def _progress(count: int) -> Generator[Callable[[], None]]:
    """A bar on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("starting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("starting", total=count)
        yield lambda: progress.advance(bar)


@contextlib.contextmanager
def _opened(source: str) -> Generator[IO[bytes]]:
    """The file, or a copy of stdin: it is read twice. Raises `ConfigurationError`."""
    if source == "-":
        import tempfile

        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            yield cast("IO[bytes]", copy)
        return
    try:
        file = Path(source).expanduser().open("rb")
    except OSError as error:
        raise ConfigurationError(f"--each {source}: the file cannot be read: {error}") from None
    with file:
        yield file


def _text(data: bytes, number: int) -> str:
    try:
        return data.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise PayloadNotSerializable(f"not UTF-8: {error}") from None
