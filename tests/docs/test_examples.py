"""Each example end to end: a real server, an orchestrator process, a worker process, the signal included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e.deployment import Deployment

from headrace import Client, Handle
from headrace.targets import load_target
from headrace_broker.connection import Server, call
from support.waiting import wait_until, wait_until_async

from .pages import ROOT

EXAMPLES = ROOT / "examples"
TESTED = {"orders.py", "moderation.py"}

pytestmark = [pytest.mark.timeout(120)]


def test_every_example_has_a_test() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == TESTED


@pytest.mark.servers("redis")
@pytest.mark.parametrize(("approved", "outcome"), [(True, "shipped"), (False, "refunded")])
def test_orders_by_the_command_line(
    approved: bool, outcome: str, server_url: str, namespace: str, tmp_path: Path
) -> None:
    with Deployment(server_url, namespace, tmp_path, [str(EXAMPLES / "orders.py")]):

        def headrace(*arguments: str) -> Any:
            return _headrace(server_url, namespace, *arguments)

        def started() -> bool:
            return _run(server_url, namespace, "start", "orders", "-i", order, "--id", "order-42").returncode == 0

        order = '{"id": "42", "total": 9}'
        wait_until(started, 30, "the worker to register the flow")
        wait_until(lambda: _waits_for(headrace("show", "order-42")) == ["approval"], 30, "the wait for the approval")
        headrace("signal", "order-42", "approval", "--payload", json.dumps(approved), "--actor", "ann")
        shown = wait_until(lambda: _ended(headrace("show", "order-42")), 30, "the end")
    assert shown["instance"]["status"] == "completed"
    assert shown["result"] == outcome
    kinds = [fact["kind"] for fact in shown["history"]]
    assert kinds.count("completed") == 4
    assert [fact["fields"]["actor"] for fact in shown["history"] if fact["kind"] == "signal_received"] == ["ann"]


@pytest.mark.servers("valkey")
async def test_orders_by_the_client(server_url: str, namespace: str, tmp_path: Path) -> None:
    orders = load_target(str(EXAMPLES / "orders.py")).flows["orders"]
    with Deployment(server_url, namespace, tmp_path, [str(EXAMPLES / "orders.py")]):
        async with Client(server_url, namespace) as client:
            handle = await client.start(orders, {"id": "42", "total": 9}, id="order-42")
            await client.signal("order-42", "approval", True)  # early: it waits in the instance
            assert await handle.result(timeout="30s") == "shipped"


@pytest.mark.full_only
@pytest.mark.servers("valkey")
async def test_moderation(server_url: str, namespace: str, tmp_path: Path) -> None:
    pytest.importorskip("rq", reason="its scores are made by RQ's work-horses")
    moderation = load_target(str(EXAMPLES / "moderation.py")).flows["moderation"]
    with Deployment(server_url, namespace, tmp_path, [str(EXAMPLES / "moderation.py")]):
        async with Client(server_url, namespace) as client:

            async def post(id: str, text: str) -> Handle[Any]:
                return await client.start(moderation, {"author": "ann", "text": text}, id=id)

            calm, loud, odd = [await post("calm", "Hello."), await post("loud", "Hello!!!!!"), await post("odd", "Hm!")]
            assert (await calm.result(timeout="60s")).startswith("published ann's post under key ")
            assert await loud.result(timeout="60s") == "dropped ann's post"

            async def asked() -> bool:
                return [str(wait) for wait in (await odd.get()).waiting_for] == ["signal:judgement"]

            await wait_until_async(asked, 60, "the wait for a judgement")
            _raw_signal(server_url, namespace, "odd", "judgement", "true")
            assert await odd.result(timeout="30s") == "a person approved ann's post"


def _raw_signal(url: str, namespace: str, instance: str, name: str, payload: str) -> None:
    """What `redis-cli XADD <namespace>:signals '*' …` does."""
    link = Server(url).connect()
    try:
        call(link, "XADD", f"{namespace}:signals", "*", "instance", instance, "name", name, "payload", payload)
    finally:
        link.close()


def _run(url: str, namespace: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace.cli", *arguments, "--json"],
        env={**os.environ, "HEADRACE_URL": url, "HEADRACE_NAMESPACE": namespace},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _headrace(url: str, namespace: str, *arguments: str) -> Any:
    done = _run(url, namespace, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _waits_for(shown: Any) -> list[str]:
    return [wait["name"] for wait in shown["instance"]["waiting_for"]]


def _ended(shown: Any) -> Any:
    return shown if shown["instance"]["ended"] is not None else None
