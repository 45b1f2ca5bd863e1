"""`headrace watch`: what it shows of one instance and of all, to terminals, pipes and programs; how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace_broker import codec, history, values, wire
from headrace_broker.connection import Link, Server, call, exchange
from headrace_broker.conversations import converse
from headrace_broker.namespace import open_namespace
from support.waiting import wait_until

from .conftest import Headrace

AT = 1_900_000_000_000
FLOW = "from headrace import Flow, task\n@task\ndef one() -> int: ...\nones = Flow('ones').then(one)\n"

pytestmark = pytest.mark.servers("valkey", "redis")


class Instance:
    """A started instance, and what an owner would write of it."""

    def __init__(self, link: Link, namespace: str, id: str, incarnation: str) -> None:
        self._link = link
        self._keys = converse(link, open_namespace(namespace)).of(id)
        self._id = id
        self._incarnation = incarnation

    def record(self, *entries: tuple[Any, ...]) -> None:
        call(self._link, "RPUSH", self._keys.history(self._incarnation), history.pack(entries))

    def end(self, status: str, *fields: str | bytes) -> None:
        self.record((AT + 2000, history.ENDED, status, "", ""))
        commands = [
            ("HSET", self._keys.outputs(self._incarnation), "1.0", values.inline(codec.encode({"ok": True}))),
            ("HSET", self._keys.header(self._id), "status", status, "ended", AT + 2000, *fields),
            ("PUBLISH", self._keys.ended(self._incarnation), status),
        ]
        exchange(self._link, commands)


@pytest.fixture
def instance(headrace: Headrace, here: tuple[str, ...], server_url: str, namespace: str) -> Iterator[Instance]:
    """An instance `a`, of which two facts are known."""
    Path("app.py").write_text(FLOW)
    incarnation = headrace("start", "app.py", "--id", "a", *here, "--json").json["incarnation"]
    link = Server(server_url).connect()
    instance = Instance(link, namespace, "a", incarnation)
    instance.record(
        (AT, history.DISPATCHED, 0, 0, 0, 1, 1),
        (AT + 1000, history.FAILED, 0, 0, 0, 1, 1, "failed", "ValueError", "negative", "Traceback …", "w1"),
    )
    yield instance
    link.close()


class Watching:
    """`headrace watch` as a process; on a terminal if it says so."""

    def __init__(self, *arguments: str, terminal: bool = False) -> None:
        self.out = ""
        self.err = ""
        command = [sys.executable, "-m", "headrace.cli", "watch", *arguments]
        ours, theirs = pty.openpty() if terminal else os.pipe()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
        self.process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment)
        os.close(theirs)
        self._readers = [
            threading.Thread(target=self._read, args=(ours, "out")),
            threading.Thread(target=self._read, args=(os.dup(self.process.stderr.fileno()), "err")),  # type: ignore[union-attr]
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, descriptor: int, name: str) -> None:
        with contextlib.suppress(OSError):  # how a terminal says that nobody writes any more
            while data := os.read(descriptor, 65536):
                setattr(self, name, getattr(self, name) + data.decode())
        os.close(descriptor)

    def saw(self, pattern: str) -> None:
        wait_until(
            lambda: re.search(pattern, self.out, re.DOTALL) or self.process.poll() is not None, 30, f"{pattern!r}"
        )
        assert re.search(pattern, self.out, re.DOTALL), (self.out, self.err)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        code = self.process.wait(30)
        for reader in self._readers:
            reader.join()
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code


def test_a_pipe_gets_a_line_for_each_fact_as_it_happens(instance: Instance, here: tuple[str, ...]) -> None:
    watching = Watching("a", *here)
    watching.saw(r"dispatched +one\n.*attempt failed +one +attempt 1, ValueError: negative\n")
    instance.record((AT + 1500, history.COMPLETED, 0, 0, 0, 1, 2, AT, 500, "w1"))
    watching.saw(r"completed +one +attempt 2, took 500 ms, on w1\n$")
    instance.end("completed", "result", "1.0")
    assert (watching.end(), watching.err) == (0, "")
    assert re.search(r'ended +completed\nresult\n\{\n  "ok": true\n\}\n$', watching.out)
    assert "\x1b" not in watching.out


def test_a_terminal_has_the_status_at_the_bottom(instance: Instance, here: tuple[str, ...]) -> None:
    watching = Watching("a", *here, terminal=True)
    watching.saw(r"attempt failed.*queued.*since the start")
    instance.end("completed", "result", "1.0")
    assert (watching.end(), watching.err) == (0, "")
    assert '"ok": true' in watching.out
    assert watching.out.rindex("\x1b[?25h") > watching.out.rindex("\x1b[?25l"), "the cursor is back"


@pytest.mark.parametrize(
    ("status", "fields", "code", "complaint"),
    [
        ("completed", ("result", "1.0"), 0, ""),
        ("failed", ("error", wire.pack(["ValueError", "no", "Tb", "one"])), 1, "'a' failed at one: ValueError: no\n"),
        ("cancelled", ("error", wire.pack(["a mistake"])), 1, "error: Instance 'a' was cancelled: a mistake\n"),
    ],
)
def test_the_outcome_is_the_exit_code(
    headrace: Headrace,
    here: tuple[str, ...],
    instance: Instance,
    status: str,
    fields: tuple[str | bytes, ...],
    code: int,
    complaint: str,
) -> None:
    instance.end(status, *fields)
    outcome = headrace("watch", "a", *here)
    assert outcome.code == code
    assert complaint in outcome.err
    assert "attempt failed" in outcome.out


def test_programs_get_a_line_of_json_for_each_fact(
    headrace: Headrace, here: tuple[str, ...], instance: Instance
) -> None:
    instance.end("completed", "result", "1.0")
    lines = [json.loads(line) for line in headrace("watch", "a", *here, "--json").out.splitlines()]
    assert [line["kind"] for line in lines] == ["dispatched", "attempt_failed", "ended"]
    assert (lines[1]["node"], lines[1]["fields"]["message"]) == ("one", "negative")


def test_an_unknown_id_is_exit_code_3(headrace: Headrace, here: tuple[str, ...]) -> None:
    assert headrace("watch", "nobody", *here).code == 3


def test_ctrl_c_leaves_an_instance_whose_outcome_is_not_known(instance: Instance, here: tuple[str, ...]) -> None:
    watching = Watching("a", *here)
    watching.saw("attempt failed")
    assert (watching.interrupt(), watching.err) == (130, "")


@pytest.mark.full_only
def test_all_of_them_on_a_terminal(instance: Instance, here: tuple[str, ...], headrace: Headrace) -> None:
    watching = Watching(*here, terminal=True)
    watching.saw(r"queued\S* 1 .*FLOW.*ones +1.*QUEUE.*WORKER.*NEWEST.*\na +ones +\S*queued")
    headrace("start", "app.py", "--id", "b", *here)
    watching.saw(r"queued\S* 2 .*NEWEST.*\nb +ones")
    assert (watching.interrupt(), watching.err) == (0, "")
    assert watching.out.rindex("\x1b[?25h") > watching.out.rindex("\x1b[?25l"), "the cursor is back"


def test_all_of_them_as_lines_that_say_something_new(
    instance: Instance, here: tuple[str, ...], headrace: Headrace
) -> None:
    for_people, for_programs = Watching(*here), Watching(*here, "--json")
    for_people.saw(r"queued 1 running 0 .* backlog none  workers 0\n")
    for_programs.saw("\n")
    headrace("start", "app.py", "--id", "b", *here)
    for_people.saw("queued 2 ")
    for_programs.saw("\n.*\n")
    assert [(one.interrupt(), one.err) for one in (for_people, for_programs)] == [(0, ""), (0, "")]
    assert len(for_people.out.splitlines()) == 2
    before, after = map(json.loads, for_programs.out.splitlines())
    assert (before["statuses"]["queued"], before["flows"], before["workers"]) == (1, {"ones": 1}, [])
    assert [item["id"] for item in after["newest"]] == ["b", "a"]
