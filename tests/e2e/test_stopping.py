"""Ctrl-C and SIGTERM: every command ends in bounded time, at once when told twice, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from headrace import Client
from headrace_broker.embedded import EmbeddedServer
from headrace_broker.locate import runs_in
from support.traces import Traces
from support.waiting import wait_until, wait_until_async

from .worker_app import waiting

APP = str(Path(__file__).with_name("worker_app.py"))
PROMPT = 4.0
"""Seconds that count as at once, of a process that has to be scheduled on a busy machine."""

FULL = pytest.mark.full_only

pytestmark = pytest.mark.timeout(120)


class Command:
    """A command of the command line in a process group of its own, as a shell gives it, and what it prints."""

    def __init__(self, log: Path, environment: dict[str, str], *arguments: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headrace.cli", *arguments],
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                process_group=0,
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def says(self, text: str, timeout: float = 30) -> None:
        wait_until(lambda: text in self.said, timeout, f"{text!r} in: {self.said}")

    def signal(self, number: signal.Signals) -> float:
        """Ctrl-C reaches the whole group, other signals the process. Returns the time."""
        (os.killpg if number == signal.SIGINT else os.kill)(self.process.pid, number)
        return time.monotonic()

    def ended(self, timeout: float = 30) -> int:
        code = self.process.wait(timeout)
        assert "Traceback" not in self.said
        return code


Run = Callable[..., Command]


@pytest.fixture
def traces() -> Iterator[Traces]:
    with Traces() as made:
        yield made


@pytest.fixture
def run(traces: Traces, tmp_path: Path) -> Iterator[Run]:
    """Runs a command whose environment has the mark, and nothing of ours but what is given."""
    commands: list[Command] = []
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}

    def start(*arguments: str, **environment: str) -> Command:
        chosen = {**plain, **traces.environment, "HEADRACE_METRICS_PORT": "0", **environment}
        commands.append(Command(tmp_path / f"{arguments[0]}{len(commands)}.log", chosen, *arguments))
        return commands[-1]

    yield start
    for command in commands:
        command.process.kill()
        command.process.wait()
        print(command.said)


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server to be frozen by SIGSTOP; it is thawed at the end."""
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer.open(tmp_path / "frozen"))
        stack.callback(os.kill, server.pid, signal.SIGCONT)
        yield server


@FULL
@pytest.mark.servers("redis")
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
async def test_ctrl_c_on_a_worker_with_every_kind_of_task_leaves_nothing(
    run: Run, traces: Traces, server_url: str, namespace: str, tmp_path: Path, twice: bool
) -> None:
    here = {"HEADRACE_URL": server_url, "HEADRACE_NAMESPACE": namespace, "HEADRACE_TEST_BEGUN": str(tmp_path / "begun")}
    (tmp_path / "begun").mkdir()
    orchestrator = run("orchestrator", **here)
    worker = run("worker", APP, "--lease", "30s", "--grace", "60s" if twice else "300ms", **here)
    async with Client(server_url, namespace) as client:
        handle = await client.start(waiting, 60.0)
        await wait_until_async(lambda: len(list((tmp_path / "begun").iterdir())) == 3, 40, "all three to run")
        told = worker.signal(signal.SIGINT)
        worker.says("Stopping: running tasks may finish")
        if twice:
            told = worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
        assert time.monotonic() - told < PROMPT + 3

        async def returned() -> bool:
            causes = [entry.fields["cause"] for entry in await client.history(handle.id) if entry.kind == "redelivered"]
            assert set(causes) <= {"returned"}
            return len(causes) == 3

        await wait_until_async(returned, 10, "all three to be handed back, and none to be lost")
        await handle.cancel()
    told = orchestrator.signal(signal.SIGTERM)
    assert orchestrator.ended() == 0
    assert time.monotonic() - told < PROMPT
    traces.assert_none()


@pytest.mark.parametrize("signals", [1, pytest.param(2, marks=FULL)])
def test_an_orchestrator_stops_soon_though_its_server_is_frozen(
    run: Run, traces: Traces, frozen: EmbeddedServer, signals: int
) -> None:
    orchestrator = run("orchestrator", "--partitions", "8", HEADRACE_URL=frozen.url)
    orchestrator.says("Partition 7: owned")
    os.kill(frozen.pid, signal.SIGSTOP)
    told = orchestrator.signal(signal.SIGTERM)
    if signals == 2:
        told = orchestrator.signal(signal.SIGINT)
    assert orchestrator.ended() == 0
    assert time.monotonic() - told < PROMPT
    assert "Stopped at once: what is still owned is free for others in 5 s." in orchestrator.said
    traces.assert_none()


@FULL
def test_a_worker_that_is_told_twice_stops_at_once_though_its_server_is_frozen(
    run: Run, traces: Traces, frozen: EmbeddedServer
) -> None:
    worker = run("worker", APP, "--rq", "0", "--log-level", "debug", HEADRACE_URL=frozen.url)
    wait_until(lambda: len(traces.processes()) > 1, 20, "a child")
    os.kill(frozen.pid, signal.SIGSTOP)
    worker.signal(signal.SIGTERM)
    worker.says("Stopping: running tasks may finish")
    told = worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    assert time.monotonic() - told < PROMPT + 2
    traces.assert_none()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(number, marks=FULL) for number in (signal.SIGINT, signal.SIGHUP))]
)
def test_a_client_that_started_a_server_takes_it_along(
    run: Run, traces: Traces, tmp_path: Path, number: signal.Signals
) -> None:
    url = f"embedded://{tmp_path / 'data'}"
    client = run("start", f"{APP}:pids", "--input", "1", "--id", "one", "--wait", "--url", url)
    wait_until(lambda: runs_in(tmp_path / "data") and (tmp_path / "data/server.json").exists(), 20, "the server")
    told = client.signal(number)
    assert client.ended() == 130
    assert time.monotonic() - told < PROMPT
    assert not runs_in(tmp_path / "data")
    traces.assert_none()


def test_a_client_stops_at_once_though_its_server_is_frozen(run: Run, traces: Traces, frozen: EmbeddedServer) -> None:
    os.kill(frozen.pid, signal.SIGSTOP)
    client = run("ls", "--url", frozen.url)
    wait_until(lambda: _has_socket(client.process.pid), 20, "it to ask the server")
    told = client.signal(signal.SIGINT)
    assert client.ended() == 130
    assert time.monotonic() - told < PROMPT
    traces.assert_none()


def _has_socket(pid: int) -> bool:
    """Beside the pair of the event loop itself."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    return sum(link.startswith("socket:") for link in links) > 2


@FULL
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_dev_takes_everything_along(run: Run, traces: Traces, tmp_path: Path, number: signal.Signals) -> None:
    dev = run("dev", APP)
    dev.says("Ctrl-C stops all")
    assert len(traces.processes()) > 4
    dev.signal(number)
    assert dev.ended() in (0, 130)
    assert not runs_in(tmp_path / ".headrace")
    traces.assert_none()


@FULL
def test_dev_may_be_stopped_while_it_starts(run: Run, traces: Traces, tmp_path: Path) -> None:
    dev = run("dev", APP)
    wait_until(lambda: runs_in(tmp_path / ".headrace"), 20, "the server to start")
    dev.signal(signal.SIGTERM)
    assert dev.ended() in (0, 130)
    assert not runs_in(tmp_path / ".headrace")
    traces.assert_none()
