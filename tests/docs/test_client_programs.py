"""The functions in README and docs that talk to a server, called: against a deployment of the orders flow."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from e2e.deployment import Deployment

from headrace import Client
from support.waiting import wait_until_async

from .pages import ROOT, blocks

pytestmark = [pytest.mark.full_only, pytest.mark.servers("valkey"), pytest.mark.timeout(120)]

Programs = Callable[[str], Any]


@pytest.fixture
def programs(server_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Programs]:
    """Gives what a page's programs define, when its URL is the deployment's."""
    monkeypatch.setenv("HEADRACE_URL", server_url)
    monkeypatch.setenv("HEADRACE_NAMESPACE", namespace)
    made: list[str] = []

    def run(page: str) -> types.ModuleType:
        module = types.ModuleType(f"docs_client_{uuid4().hex}")
        sys.modules[module.__name__] = module
        made.append(module.__name__)
        for block in blocks(ROOT / page):
            if block.language == "python":
                text = block.text
                for url in ("redis://redis.internal:6379/0", "redis://localhost:6379/0"):
                    text = text.replace(f'"{url}", "headrace"', f'"{server_url}", "{namespace}"').replace(
                        url, server_url
                    )
                exec(compile(text, page, "exec", dont_inherit=True), module.__dict__)
        return module

    with Deployment(server_url, namespace, tmp_path, [str(ROOT / "examples/orders.py")]):
        yield run
    for name in made:
        del sys.modules[name]


async def test_those_of_the_guide(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    guide = programs("docs/guide.md")
    first, second, third = (guide.Order(id=str(number), total=9) for number in (1, 2, 3))
    bought = asyncio.create_task(guide.checkout(first))
    await _is_there("order-1")
    await guide.approve("1")
    assert await bought == "shipped"
    await guide.watch("order-1")
    assert "signal_taken wait_approval" in capsys.readouterr().out
    await guide.import_orders([second])
    await guide.withdraw("2")
    async with Client() as client:
        await wait_until_async(lambda: _has_status(client, "order-2", "cancelled"), 30, "the order to be withdrawn")
    waited = asyncio.create_task(asyncio.to_thread(guide.checkout_and_wait, third))
    await _is_there("order-3")
    await guide.approve("3")
    assert await waited == "shipped"


async def test_those_of_readme_and_the_errors(programs: Programs) -> None:
    readme, errors = programs("README.md"), programs("docs/reference/errors.md")
    bought = asyncio.create_task(readme.checkout(readme.Order(id="1", total=9)))
    await _is_there("order-1")
    async with Client() as client:
        assert await errors.once(client, "order-1") == "it runs already"
        assert await errors.once(client, "") == "invalid_instance_id: " + await _said(client, "")
        await client.signal("order-1", "approval", False)
    assert await bought == "refunded"


async def test_those_of_the_client_reference(programs: Programs) -> None:
    reference = programs("docs/reference/client.md")
    asked = asyncio.create_task(reference.in_async_code())
    await _is_there("order-42")
    async with Client() as client:
        await client.signal("order-42", "approval", True)
        assert await asked is True
        asked = asyncio.create_task(asyncio.to_thread(reference.in_sync_code))
        await wait_until_async(lambda: _has_status(client, "order-42", "waiting"), 30, "the second use of the id")
        await client.signal("order-42", "approval", True)
        assert await asked is True
        handles = await reference.start_all(client, range(3))
        assert [handle.id for handle in handles] == ["order-0", "order-1", "order-2"]
        for handle in handles:
            await handle.cancel()


async def _is_there(id: str) -> None:
    async with Client() as client:
        await wait_until_async(lambda: _has_status(client, id, "queued", "running", "waiting"), 30, f"{id} to start")


async def _has_status(client: Client, id: str, *statuses: str) -> bool:
    return any(item.id == id and item.status in statuses for item in (await client.list()).items)


async def _said(client: Client, id: str) -> str:
    with pytest.raises(Exception) as raised:  # noqa: PT011  whatever it is, the program is to say the same
        await client.start("orders", {"id": "42", "total": 9}, id=id)
    return str(raised.value)
