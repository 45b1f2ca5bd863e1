"""What the shells complete: commands, options, and values that a server knows, if it answers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.cli import completing

from .conftest import Headrace

FLOW = "from headrace import Flow, task\n@task\ndef one() -> int: ...\nones = Flow('ones').then(one)\n"


Propose = Callable[..., list[str]]


@pytest.fixture
def propose(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Propose:
    """What bash is told for a line, in the empty directory; there is never anything on stderr."""

    def propose(line: str, **environment: str) -> list[str]:
        position = str(len(line.split(" ")) - 1)
        asked = {"_HEADRACE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": position}
        with monkeypatch.context() as patch:
            for name, value in {**asked, **environment}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                headrace()
        said = capsys.readouterr()
        assert (ended.value.code, said.err) == (0, "")
        return said.out.split()

    return propose


def test_bash_takes_the_script_and_completes_commands(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    _program(tmp_path, "headrace")
    script = (
        "source <(_HEADRACE_COMPLETE=source_bash headrace)\n"
        "complete -p headrace\n"
        "COMP_WORDS=(headrace w) COMP_CWORD=1\n"
        "_headrace_completion headrace\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        [bash, "--norc", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    registered, proposed = done.stdout.splitlines()
    assert registered.endswith("-F _headrace_completion headrace")
    assert proposed.split() == ["worker", "watch"]


def test_the_shell_in_use_is_found(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    _program(tmp_path, "headrace")
    done = subprocess.run(
        [bash, "--norc", "-c", "headrace --show-completion; true"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "complete -o default -F _headrace_completion headrace" in done.stdout


@pytest.mark.full_only
def test_zsh_gets_a_script_and_completes_commands() -> None:
    script = _said({"_HEADRACE_COMPLETE": "source_zsh"})
    assert script.startswith("#compdef headrace")
    assert "_HEADRACE_COMPLETE=complete_zsh" in script
    proposed = _said({"_HEADRACE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "headrace sh"})
    assert '"show":"Show an instance' in proposed
    assert "signal" not in proposed
    if (zsh := shutil.which("zsh")) is not None:
        subprocess.run([zsh, "-n"], input=script, text=True, timeout=30, check=True)


def test_values_that_are_fixed_need_no_server(propose: Propose) -> None:
    assert propose("headrace ls --status c") == ["cancelling", "completed", "cancelled"]


@pytest.mark.servers("valkey")
def test_ids_and_flows_come_from_the_server(
    headrace: Headrace, propose: Propose, here: tuple[str, ...], server_url: str, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "ones.py").write_text(FLOW)
    for id in ("order-1", "order-2", "refund-1"):
        assert headrace("start", "ones.py", "--id", id, *here).code == 0
    assert propose(f"headrace show --url {server_url} --namespace {namespace} order") == ["order-2", "order-1"]
    environment = {"HEADRACE_URL": server_url, "HEADRACE_NAMESPACE": namespace}
    assert propose("headrace watch ", **environment) == ["refund-1", "order-2", "order-1"]
    assert propose("headrace start o", **environment) == ["ones"]
    assert propose("headrace ls --flow ", **environment) == ["ones"]


def test_a_server_that_is_not_there_is_no_reason_to_wait_or_to_complain(propose: Propose, tmp_path: Path) -> None:
    with socket.socket() as silent, socket.socket() as closed:
        for one in (silent, closed):
            one.bind(("127.0.0.1", 0))
        silent.listen()
        for server in (silent, closed):
            url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
            assert propose("headrace show ", HEADRACE_URL=url) == []
    assert propose("headrace show ", HEADRACE_URL="embedded://data") == []
    assert propose("headrace show ", HEADRACE_URL="nonsense") == []
    assert not list(tmp_path.iterdir()), "no server is started for this"


def test_what_cannot_be_interrupted_is_ended_with_the_process() -> None:
    slow = (
        "import time\n"
        "from headrace.cli import completing\n"
        "with completing._at_most(0.1):\n"
        "    time.sleep(600)\n"
        "raise SystemExit(7)\n"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", slow], timeout=30, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert time.monotonic() - begun < 20
    before = signal.getsignal(signal.SIGALRM)
    with completing._at_most(60):  # pyright: ignore[reportPrivateUsage]
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)) == (before, (0.0, 0.0))


def _program(directory: Path, name: str) -> None:
    """`headrace` as it is installed, for this interpreter."""
    program = directory / name
    program.write_text(f"#!{sys.executable}\nfrom headrace.cli import main\nmain()\n")
    program.chmod(0o755)


def _said(environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", "from headrace.cli import main; main()"]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stderr == ""
    return done.stdout.strip()
