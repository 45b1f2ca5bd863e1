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
from headrace_broker.errors import FlowNotFound
from support.waiting import wait_until_async

from .pages import ROOT

EXAMPLES = ROOT / "examples"
TESTED = {"orders.py", "moderation.py"}

pytestmark = [pytest.mark.timeout(120)]


def test_every_example_has_a_test() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == TESTED


OUTCOMES = {"shipped": True, "refunded": False}
"""What becomes of an order, by its approval."""


@pytest.mark.servers("redis")
@pytest.mark.parametrize("outcome", ["shipped", pytest.param("refunded", marks=pytest.mark.full_only)])
async def test_orders_by_the_command_line(outcome: str, server_url: str, namespace: str, tmp_path: Path) -> None:
    def headrace(*arguments: str) -> Any:
        return _headrace(server_url, namespace, *arguments)

    with Deployment(server_url, namespace, tmp_path, [str(EXAMPLES / "orders.py")]):
        async with Client(server_url, namespace) as client:
            await wait_until_async(lambda: _registered(client, "orders"), 30, "the worker to register the flow")
            headrace("start", "orders", "-i", '{"id": "42", "total": 9}', "--id", "order-42")
            await _asked(client, "order-42", "approval")
            assert _waits_for(headrace("show", "order-42")) == ["approval"]
            headrace("signal", "order-42", "approval", "--payload", json.dumps(OUTCOMES[outcome]), "--actor", "ann")
            await client.handle("order-42").result(timeout="30s")
            shown = headrace("show", "order-42")
    assert shown["instance"]["status"] == "completed"
    assert shown["result"] == outcome
    kinds = [fact["kind"] for fact in shown["history"]]
    assert kinds.count("completed") == 4
    assert [fact["fields"]["actor"] for fact in shown["history"] if fact["kind"] == "signal_received"] == ["ann"]


@pytest.mark.full_only
@pytest.mark.servers("valkey")
@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_orders_by_the_client(outcome: str, server_url: str, namespace: str, tmp_path: Path) -> None:
    orders = load_target(str(EXAMPLES / "orders.py")).flows["orders"]
    with Deployment(server_url, namespace, tmp_path, [str(EXAMPLES / "orders.py")]):
        async with Client(server_url, namespace) as client:
            handle = await client.start(orders, {"id": "42", "total": 9}, id="order-42")
            await client.signal("order-42", "approval", OUTCOMES[outcome])  # early: it waits in the instance
            assert await handle.result(timeout="30s") == outcome


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
            await _asked(client, "odd", "judgement")
            _raw_signal(server_url, namespace, "odd", "judgement", "true")
            assert await odd.result(timeout="30s") == "a person approved ann's post"


async def _asked(client: Client, id: str, signal: str) -> None:
    """Waits until the instance waits for that signal."""

    async def asked() -> bool:
        return [str(wait) for wait in (await client.get(id)).waiting_for] == [f"signal:{signal}"]

    await wait_until_async(asked, 60, f"{id} to wait for {signal}")


async def _registered(client: Client, flow: str) -> bool:
    try:
        await client.current_flow(flow)
    except FlowNotFound:
        return False
    return True


def _raw_signal(url: str, namespace: str, instance: str, name: str, payload: str) -> None:
    """What `redis-cli XADD <namespace>:signals '*' …` does."""
    link = Server(url).connect()
    try:
        call(link, "XADD", f"{namespace}:signals", "*", "instance", instance, "name", name, "payload", payload)
    finally:
        link.close()


def _headrace(url: str, namespace: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli", *arguments, "--json"],
        env={**os.environ, "HEADRACE_URL": url, "HEADRACE_NAMESPACE": namespace},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _waits_for(shown: Any) -> list[str]:
    return [wait["name"] for wait in shown["instance"]["waiting_for"]]
