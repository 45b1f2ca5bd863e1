"""Child processes: started again after a death, stopped in order, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.cli.supervisor import Event, Supervisor
from headrace_broker.errors import HeadraceError
from support.waiting import wait_until

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
GATED = [
    *(sys.executable, "-S", "-c"),
    """
import os, signal, sys, time
def stop(*_):
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.01)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[1], "w").close()
time.sleep(600)
""",
]
"""Says that it is ready by its first argument, and ends by SIGTERM only when there is a file of its second's name."""
STUBBORN = [
    *(sys.executable, "-S", "-c"),
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)",
]

COUNTING = [
    *(sys.executable, "-S", "-c"),
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: print('SIGTERM', flush=True)); "
    "print('ready', flush=True); time.sleep(600)",
]


class Events:
    def __init__(self) -> None:
        self.all: list[Event] = []
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self.all.append(event)

    def kinds(self, name: str) -> list[str]:
        return [event.kind for event in self.all if event.name == name]


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def supervisor(events: Events) -> Iterator[Supervisor]:
    with Supervisor(events, grace=5, final_codes=(2,)) as supervisor:
        yield supervisor
        supervisor.kill()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def is_dead(pid: int) -> Callable[[], bool]:
    return lambda: not alive(pid)


def test_a_child_that_is_killed_is_started_again(supervisor: Supervisor, events: Events) -> None:
    first = supervisor.spawn("a", SLEEP)
    os.kill(first, signal.SIGKILL)
    second = wait_until(lambda: (pid := supervisor.pid("a")) != first and pid)
    assert alive(int(second or 0))
    wait_until(lambda: events.kinds("a") == ["started", "died", "restarting", "started"])
    assert events.all[1].cause == "killed by SIGKILL"
    assert 0.05 <= events.all[2].delay <= 0.1


def test_restarts_wait_longer_each_time(supervisor: Supervisor, events: Events) -> None:
    supervisor.spawn("a", [sys.executable, "-S", "-c", "raise SystemExit(7)"])
    wait_until(lambda: events.kinds("a").count("restarting") >= 4)
    delays = [event.delay for event in events.all if event.kind == "restarting"]
    for number, delay in enumerate(delays):
        assert 0.05 * 2**number <= delay <= 0.1 * 2**number
    assert events.all[1].cause == "exit code 7"


def test_a_child_with_a_final_code_stays_down(supervisor: Supervisor, events: Events) -> None:
    supervisor.spawn("a", [sys.executable, "-S", "-c", "raise SystemExit(2)"])
    wait_until(lambda: events.kinds("a") == ["started", "died", "gave_up"])
    assert supervisor.pid("a") is None


def test_stop_ends_all_by_sigterm(supervisor: Supervisor, events: Events) -> None:
    pids = [supervisor.spawn(name, SLEEP) for name in "abc"]
    begun = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - begun < 4
    assert not any(alive(pid) for pid in pids)
    assert [event.code for event in events.all if event.kind == "stopped"] == [-signal.SIGTERM] * 3
    with pytest.raises(HeadraceError, match="was stopped"):
        supervisor.spawn("d", SLEEP)


def test_what_ignores_sigterm_is_killed_after_the_grace(supervisor: Supervisor, events: Events, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pid = supervisor.spawn("a", STUBBORN, log=log)
    wait_until(lambda: "ready" in log.read_text())
    supervisor.stop(grace=0.2)
    assert not alive(pid)
    assert events.all[-1].cause == "killed by SIGKILL"


def test_stop_does_not_wait_for_a_restart_that_is_due(supervisor: Supervisor, events: Events) -> None:
    supervisor.spawn("a", [sys.executable, "-S", "-c", "raise SystemExit(7)"])
    wait_until(lambda: events.kinds("a").count("restarting") >= 2)
    begun = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - begun < 2
    assert supervisor.pid("a") is None


def test_a_restart_is_asked_for_and_waits_for_nothing(supervisor: Supervisor, events: Events, tmp_path: Path) -> None:
    ready, gate = tmp_path / "ready", tmp_path / "gate"
    first = supervisor.spawn("a", [*GATED, str(ready), str(gate)])
    wait_until(ready.exists)
    supervisor.restart("a")
    supervisor.restart("a")  # a second SIGTERM would say: at once
    assert supervisor.pid("a") is None
    gate.touch()
    second = wait_until(lambda: supervisor.pid("a"))
    assert second != first
    wait_until(is_dead(first))
    wait_until(lambda: events.kinds("a") == ["started", "stopped", "started"])
    assert events.all[1].code == -signal.SIGTERM


def test_stop_leaves_its_grace_to_a_child_that_was_told_to_start_again(events: Events, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Supervisor(events, grace=30) as supervisor:
        supervisor.spawn("a", COUNTING, log=log)
        wait_until(lambda: "ready" in log.read_text())
        supervisor.restart("a")
        wait_until(lambda: log.read_text().count("SIGTERM") == 1)
        supervisor.stop(grace=0.3)
    assert log.read_text().count("SIGTERM") == 1
    assert events.kinds("a") == ["started", "stopped"]


def test_a_restart_does_not_wait_for_one_that_is_due_later(
    supervisor: Supervisor, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.cli.supervisor.FIRST_DELAY", 100.0)
    monkeypatch.setattr("headrace.cli.supervisor.LONGEST_DELAY", 100.0)
    supervisor.spawn("a", [sys.executable, "-S", "-c", "raise SystemExit(7)"])
    wait_until(lambda: events.kinds("a") == ["started", "died", "restarting"])
    supervisor.restart("a")
    wait_until(lambda: events.kinds("a").count("started") == 2)


def test_a_child_that_gave_up_can_be_started_again(supervisor: Supervisor, events: Events, tmp_path: Path) -> None:
    code = f"import os, time; os.path.exists({str(tmp_path / 'mended')!r}) or os._exit(2); time.sleep(600)"
    supervisor.spawn("a", [sys.executable, "-S", "-c", code])
    wait_until(lambda: "gave_up" in events.kinds("a"))
    (tmp_path / "mended").touch()
    supervisor.restart("a")
    wait_until(lambda: events.kinds("a") == ["started", "died", "gave_up", "started"])
    assert alive(supervisor.pid("a") or 0)


def test_what_ignores_the_restarts_sigterm_is_killed_after_the_grace(events: Events, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Supervisor(events, grace=0.2) as supervisor:
        first = supervisor.spawn("a", STUBBORN, log=log)
        wait_until(lambda: "ready" in log.read_text())
        supervisor.restart("a")
        wait_until(lambda: events.kinds("a") == ["started", "stopped", "started"])
        assert not alive(first)
        assert events.all[1].cause == "killed by SIGKILL"
    with pytest.raises(HeadraceError, match="no child named 'b'"):
        supervisor.restart("b")


def test_children_are_in_groups_of_their_own(supervisor: Supervisor) -> None:
    pid = supervisor.spawn("a", SLEEP)
    assert os.getpgid(pid) == pid != os.getpgrp()


def test_environment_and_log(supervisor: Supervisor, events: Events, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import os, sys; print(os.environ['COLOUR'], file=sys.stderr); raise SystemExit(2)"
    supervisor.spawn("a", [sys.executable, "-S", "-c", code], environment={"COLOUR": "blue"}, log=log)
    wait_until(lambda: "gave_up" in events.kinds("a"))
    assert log.read_text() == "blue\n"


def test_names_are_used_once_and_logs_can_be_written(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.spawn("a", SLEEP)
    with pytest.raises(HeadraceError, match="'a' runs already"):
        supervisor.spawn("a", SLEEP)
    with pytest.raises(HeadraceError, match="b could not be started"):
        supervisor.spawn("b", SLEEP, log=tmp_path / "missing" / "log")
    assert supervisor.names == ("a",)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_no_child_outlives_us(tmp_path: Path) -> None:
    parent = (
        "import sys, time\n"
        "from headrace.cli.supervisor import Supervisor\n"
        f"print(Supervisor().spawn('a', {SLEEP!r}), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        wait_until(lambda: b"time.sleep" in Path(f"/proc/{pid}/cmdline").read_bytes(), why="the child's exec")
        assert alive(pid)
        process.kill()
    wait_until(is_dead(pid), why="the child's death")
