"""`doctor`, `quarantine` and `unblock` as they are typed: what they print, where, and their exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace_broker import quarantine
from headrace_broker.connection import Link, Server, call, exchange
from headrace_broker.conversations import converse
from headrace_broker.namespace import Namespace, open_namespace

from .conftest import Headrace


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    link = Server(server_url).connect()
    yield link
    link.close()


@pytest.fixture
def opened(link: Link, namespace: str) -> Namespace:
    return converse(link, open_namespace(namespace))


def put(link: Link, opened: Namespace, **raw: bytes) -> str:
    fields = {name.encode(): value for name, value in raw.items()}
    (id,) = exchange(link, [quarantine.write(opened.all_partitions[0], "signals", "1-1", "", "it is bad", fields)])
    return f"0:{id.decode()}"


class TestDoctor:
    def test_a_server_that_does_not_answer(self, headrace: Headrace, tmp_path: Path) -> None:
        outcome = headrace("doctor", "--url", f"unix://{tmp_path}/nothing", "--json")
        assert outcome.code == 4
        (finding,) = outcome.json["findings"]
        assert finding["code"] == "server_unreachable"
        assert outcome.json["facts"] is None
        assert "server_unreachable" in headrace("doctor", "--url", f"unix://{tmp_path}/nothing").out

    @pytest.mark.real_only
    def test_it_makes_no_namespace(self, headrace: Headrace, here: tuple[str, ...], link: Link, namespace: str) -> None:
        outcome = headrace("doctor", *here)
        assert outcome.code == 5
        assert "namespace_missing" in outcome.out
        assert call(link, "EXISTS", f"{namespace}:namespace") == 0

    @pytest.mark.real_only
    def test_a_namespace_that_nobody_works_on(
        self, headrace: Headrace, here: tuple[str, ...], opened: Namespace
    ) -> None:
        outcome = headrace("doctor", *here)
        assert outcome.code == 1
        assert "partition_without_owner" in outcome.out
        assert "mend: headrace orchestrator" in outcome.out
        found = headrace("doctor", *here, "--json").json
        assert found["status"] == "error"
        assert [part["owner_ttl_ms"] for part in found["facts"]["partitions"]] == [None] * 4
        assert abs(found["facts"]["clock_offset_ms"]) < 1000

    @pytest.mark.real_only
    def test_a_server_that_refuses_to_tell(
        self, headrace: Headrace, here: tuple[str, ...], link: Link, opened: Namespace, server_url: str
    ) -> None:
        user = f"u{opened.keys.ns}"
        call(link, "ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all", "-info", "-config")
        try:
            url = server_url.replace("unix://", f"unix://{user}:secret@")
            found = headrace("doctor", "--url", url, *here[2:], "--json").json
        finally:
            call(link, "ACL", "DELUSER", user)
        codes = [finding["code"] for finding in found["findings"]]
        assert codes == ["partition_without_owner", "server_refuses"]
        assert found["facts"]["server"]["refused"].keys() == {"INFO", "CONFIG"}

    @pytest.mark.real_only
    def test_as_a_monitor_calls_it(self, here: tuple[str, ...], opened: Namespace) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "headrace.cli", "doctor", *here, "--json"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr == ""
        assert json.loads(done.stdout)["status"] == "error"


class TestQuarantine:
    def test_nothing(self, headrace: Headrace, here: tuple[str, ...]) -> None:
        for command in (("ls",), ("retry", "--all"), ("drop", "--all", "--yes")):
            outcome = headrace("quarantine", *command, *here)
            assert (outcome.code, outcome.out, outcome.err) == (0, "", "nothing is in quarantine\n")

    def test_show_says_what_it_is(
        self, headrace: Headrace, here: tuple[str, ...], link: Link, opened: Namespace
    ) -> None:
        id = put(link, opened, instance=b"c", name=b"go", payload=b"7", odd=b"\x1b[31m\xff")
        outcome = headrace("quarantine", "show", id, *here)
        assert outcome.code == 0
        assert "SignalMessage" in outcome.out
        assert f"headrace quarantine retry {id}" in outcome.out
        assert "\x1b" not in outcome.out, "nothing that a terminal would obey"
        shown = headrace("quarantine", "show", id, *here, "--json").json
        assert (shown["reason"], shown["obstacle"], shown["message"]["kind"]) == ("it is bad", None, "SignalMessage")

    def test_pages(self, headrace: Headrace, here: tuple[str, ...], link: Link, opened: Namespace) -> None:
        ids = [put(link, opened, foo=b"bar") for _ in range(3)]
        first = headrace("quarantine", "ls", "--limit", "2", *here, "--json").json
        assert [item["entry"] for item in first["items"]] == [ids[2], ids[1]]
        rest = headrace("quarantine", "ls", "--cursor", first["cursor"], *here)
        assert ids[0] in rest.out
        assert ids[1] not in rest.out

    @pytest.mark.parametrize("command", ["show", "retry", "drop"])
    def test_an_entry_that_is_not_there(self, headrace: Headrace, here: tuple[str, ...], command: str) -> None:
        yes = ("--yes",) if command == "drop" else ()
        outcome = headrace("quarantine", command, "0:1-1", *yes, *here)
        assert outcome.code == 3
        assert outcome.err.startswith("error: No entry 0:1-1 is in quarantine.")
        assert headrace("quarantine", command, "rubbish", *yes, *here).code == 2

    @pytest.mark.parametrize("command", ["retry", "drop"])
    def test_which(self, headrace: Headrace, here: tuple[str, ...], command: str) -> None:
        for arguments in ((), ("0:1-1", "--all")):
            outcome = headrace("quarantine", command, *arguments, *here)
            assert (outcome.code, outcome.err) == (2, "error: Which entries? Name them, or say --all.\n")

    def test_drop_asks_whoever_is_there(
        self,
        headrace: Headrace,
        here: tuple[str, ...],
        link: Link,
        opened: Namespace,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        id = put(link, opened, foo=b"bar")
        outcome = headrace("quarantine", "drop", id, *here)
        assert (outcome.code, outcome.err[:27]) == (2, "error: What is dropped is g")
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("typer.confirm", _refuse)
        assert headrace("quarantine", "drop", id, *here).code == 130
        assert call(link, "XLEN", opened.all_partitions[0].quarantine) == 1
        assert headrace("quarantine", "drop", id, "--yes", *here).out == f"dropped {id}\n"
        assert call(link, "XLEN", opened.all_partitions[0].quarantine) == 0

    def test_what_some_refuse_is_told_of_each(
        self, headrace: Headrace, here: tuple[str, ...], link: Link, opened: Namespace
    ) -> None:
        put(link, opened, foo=b"bar")
        gone = put(link, opened, instance=b"nobody", name=b"go")
        outcome = headrace("quarantine", "retry", "--all", *here, "--json")
        assert outcome.code == 1
        assert outcome.json["retried"] == []
        assert "no instance of id 'nobody'" in outcome.json["refused"][gone]

    def test_all_are_put_back_in_the_order_they_came(
        self, headrace: Headrace, here: tuple[str, ...], link: Link, opened: Namespace
    ) -> None:
        part = opened.all_partitions[0]
        ids: list[str] = []
        for n in range(3):
            (id,) = exchange(link, [quarantine.write(part, "events", "1-1", "", "it is bad", {b"m": str(n).encode()})])
            ids.append(f"0:{id.decode()}")
        assert headrace("quarantine", "retry", "--all", *here, "--json").json["retried"] == ids
        assert [fields for _, fields in call(link, "XRANGE", part.events, "-", "+")] == [
            [b"m", b"0"],
            [b"m", b"1"],
            [b"m", b"2"],
        ]


def _refuse(*_: object, **__: object) -> None:
    import typer

    raise typer.Abort


class TestUnblock:
    @pytest.mark.parametrize("arguments", [(), ("x", "--all"), ("x", "--flow", "f")])
    def test_which(self, headrace: Headrace, here: tuple[str, ...], arguments: tuple[str, ...]) -> None:
        assert headrace("unblock", *arguments, *here).code == 2

    def test_none(self, headrace: Headrace, here: tuple[str, ...]) -> None:
        outcome = headrace("unblock", "--all", *here)
        assert (outcome.code, outcome.err) == (0, "no blocked instances\n")
        assert headrace("unblock", "nobody", *here).code == 3
