"""All instances at a glance: what a terminal has no room for is counted."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from rich.console import Console

from headrace.cli import overview
from headrace.cli.overview import Sight, in_words
from headrace_broker.instances import STATUSES
from headrace_broker.overview import Overview, QueueLoad
from headrace_broker.snapshots import Snapshot, Waiting
from headrace_broker.workers import WorkerRecord

NOW = datetime.now(UTC)


def snapshot(number: int, **fields: object) -> Snapshot:
    known = {"definition": "d", "status": "running", "created": NOW, "ended": None, "run": 1, "actor": ""}
    return Snapshot(f"i{number}", f"inc{number}", "f1", **{**known, **fields})  # type: ignore[arg-type]


def shown(sight: Sight, height: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    console = Console(width=100, height=height, force_terminal=True, color_system=None)
    monkeypatch.setattr(overview, "console", lambda: console)
    with console.capture() as capture, overview.live_table() as show:
        show(sight)
    plain = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", capture.get())
    return [line.rstrip() for line in plain[plain.rindex("queued 0") :].splitlines()]  # the last time it was drawn


def test_a_table_fits_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Overview(
        statuses={**dict.fromkeys(STATUSES, 0), "running": 20, "blocked": 1},
        flows={f"f{n}": n for n in range(10)},
        more_flows=5,
        queues=tuple(QueueLoad(f"q{n}", n, n % 2) for n in range(10)),
        workers=tuple(WorkerRecord(f"k{n}", "host", n, 2, 16, 0, ("q1",), ()) for n in range(10)),
    )
    sight = Sight(found, tuple(snapshot(n) for n in range(20)))
    lines = shown(sight, 40, monkeypatch)
    assert lines[0].startswith("queued 0   running 20   waiting 0   completed 0   failed 0   blocked 1   ")
    words = [line.split() for line in lines]
    assert [row[0] for row in words[3:9]] == ["f9", "f8", "f7", "f6", "f5", "f4"], "those with most instances"
    assert words[9] == ["and", "9", "more"]
    assert ["q9", "9", "1"] in words
    assert lines.count("and 4 more") == 2
    assert any(line.startswith("host, pid 0") and line.endswith("q1") and " 32 " in line for line in lines)
    assert (words[-1][:3], len(lines)) == (["i8", "f1", "running"], 39), "as many instances as there is room for"


def test_a_line_names_the_first_waits() -> None:
    waits = tuple(Waiting("task", f"t{n}", f"t{n}") for n in range(5))
    text = in_words(snapshot(1, active=waits)).plain
    assert text.startswith("running  task:t0  task:t1  task:t2  and 2 more  ")
    blocked = in_words(snapshot(1, status="blocked", reason="no definition")).plain
    assert blocked.startswith("blocked  no definition  ")
