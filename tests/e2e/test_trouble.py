"""What a person does when something is wrong, with real processes: look, mend, and see it go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace import Flow
from headrace.cli.running import run
from headrace_broker import codec
from headrace_broker.connection import Server, call
from headrace_broker.conversations import converse
from headrace_broker.namespace import open_namespace
from headrace_broker.registry import store_flow
from headrace_broker.requests import Payload, StartRequest
from support.waiting import wait_until

from .deployment import Deployment
from .trouble_app import flow

APP = str(Path(__file__).with_name("trouble_app.py"))


@pytest.mark.servers("valkey")
def test_from_all_is_well_to_all_is_well(
    server_url: str, namespace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = Server(server_url).connect()
    opened = converse(link, open_namespace(namespace))

    def headrace(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = run([*arguments, "--url", server_url, "--namespace", namespace, "--json"])
        return code, json.loads(capsys.readouterr().out)

    def findings() -> tuple[int, set[str]]:
        code, found = headrace("doctor")
        return code, {finding["code"] for finding in found["findings"]}

    def status(id: str) -> str:
        shown: str = headrace("show", id)[1]["instance"]["status"]
        return shown

    with Deployment(server_url, namespace, tmp_path, [APP]):
        wait_until(lambda: headrace("doctor")[1]["facts"]["workers"], 20, "a worker")
        wait_until(lambda: findings() == (0, set()), 20, "all is well")

        call(link, "XADD", opened.keys.signals, "*", "instance", "early", "name", "go", "payload", "21")
        wait_until(lambda: findings() == (5, {"quarantine"}), 10, "the signal for nobody is told")
        assert headrace("start", "trouble", "--input", "0", "--id", "early")[0] == 0
        assert headrace("quarantine", "retry", "--all")[0] == 0
        wait_until(lambda: status("early") == "completed", 10, "the signal came after all")
        assert headrace("show", "early")[1]["result"] == 42
        assert findings() == (0, set())

        definition = Flow("unknown", input=int).then_flow(flow).definition
        request = StartRequest("lost", "unknown", definition.digest, Payload(codec.encode(0)))
        converse(link, request.hold(opened))
        wait_until(lambda: findings() == (1, {"instances_blocked"}), 10, "it is told")
        call(link, "XADD", opened.keys.signals, "*", "instance", "lost", "name", "go", "payload", "7")
        wait_until(lambda: headrace("show", "lost")[1]["instance"]["parked"] == 2, 10, "the signal is parked")
        converse(link, store_flow(opened.keys, definition))
        wait_until(lambda: status("lost") == "completed", 10, "it goes on by itself")
        assert headrace("show", "lost")[1]["result"] == 14
        wait_until(lambda: findings() == (0, set()), 10, "all is well again")
    link.close()
