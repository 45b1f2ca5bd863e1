"""Retention and deletion by real processes, as they are typed: what has ended goes, and frees a server that is full."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import Client
from headrace.errors import InstanceNotFound, ServerFull
from headrace_broker.connection import Server, call
from headrace_broker.embedded import EmbeddedServer
from support.servers import redis_binary
from support.waiting import wait_until_async

from .deployment import Deployment
from .retention_app import flow

APP = str(Path(__file__).with_name("retention_app.py"))
LIMIT = 8 * 1024 * 1024


def headrace(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace.cli", *arguments]
    environment = {**os.environ, "HEADRACE_URL": url}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


async def test_a_deleted_instance_is_gone(tmp_path: Path) -> None:
    with EmbeddedServer.open(tmp_path / "server") as server, Deployment(server.url, "headrace", tmp_path, [APP]):
        async with Client(server.url) as client:
            for id in ("a", "b"):
                await (await client.start(flow, "x", id=id)).result(timeout="30s")
            asked = headrace(server.url, "delete", "a")
            assert (asked.returncode, asked.stdout, asked.stderr) == (0, "delete of a requested\n", "")

            async def gone() -> bool:
                try:
                    await client.get("a")
                except InstanceNotFound:
                    return True
                return False

            await wait_until_async(gone, why="the deletion")
        assert headrace(server.url, "show", "a").returncode == 3
        assert headrace(server.url, "show", "b").returncode == 0


@pytest.mark.full_only
@pytest.mark.timeout(180)
async def test_a_full_server_frees_itself_and_goes_on(tmp_path: Path) -> None:
    """Four times as many instances as it has room for; each start that is refused is tried again."""
    with EmbeddedServer.open(tmp_path / "server", binary=redis_binary()) as server:
        link = Server(server.url).connect()
        call(link, "CONFIG", "SET", "maxmemory", LIMIT)
        arguments = {"HEADRACE_RETENTION_COMPLETED": "1s"}
        with Deployment(server.url, "headrace", tmp_path, [APP], arguments):
            async with Client(server.url) as client:
                ended = refused = 0

                async def one() -> None:
                    nonlocal ended, refused
                    while True:
                        try:
                            handle = await client.start(flow, "x" * 10_000)
                            break
                        except ServerFull:
                            refused += 1
                            await asyncio.sleep(0.1)
                    await handle.ended()
                    ended += 1

                for _ in range(4 * LIMIT // 10_000 // 20):
                    await asyncio.gather(*(one() for _ in range(20)))
                assert refused, "it was never full"
                assert ended == 4 * LIMIT // 10_000 // 20 * 20
        link.close()
