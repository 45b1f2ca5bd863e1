"""Payloads at their limits through real processes: all the way round, or refused where a user sees it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace import Client, InstanceFailed
from headrace_broker.codec import PAYLOAD_LIMIT

from .deployment import Deployment
from .payload_app import echoing, impossible, together

APP = str(Path(__file__).with_name("payload_app.py"))


def headrace(url: str, namespace: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace.cli", *arguments],
        env={**os.environ, "HEADRACE_URL": url, "HEADRACE_NAMESPACE": namespace},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.timeout(120)
@pytest.mark.real_only
@pytest.mark.full_only
async def test_payloads_at_their_limits(server_url: str, namespace: str, tmp_path: Path) -> None:
    exact, beyond = tmp_path / "exact.json", tmp_path / "beyond.json"
    exact.write_text(json.dumps("x" * (PAYLOAD_LIMIT - 5)))  # a head of five bytes as the task returns it
    beyond.write_text(json.dumps("x" * (PAYLOAD_LIMIT - 1)))
    strange: list[Any] = [2**200, -(2**200), float("inf"), b"\xff\xfe", {(1, 2): None, 3: {4}}, (), [], {}]
    with Deployment(server_url, namespace, tmp_path, [APP]):
        async with Client(server_url, namespace) as client:
            blocks = await client.start(together, 7)
            assert await (await client.start(echoing, strange, id="strange")).result(60) == strange
            failures = [await client.start(impossible, what, id=what) for what in ("circle", "generator", "large")]
            for handle, kind in zip(failures, ["NotSerializable", "NotSerializable", "TooLarge"], strict=True):
                with pytest.raises(InstanceFailed, match=f"failed at make: Payload{kind}: "):
                    await handle.result(60)
                assert [event.kind for event in await handle.history()].count("attempt_failed") == 1, "not tried again"
            parts = await blocks.result(60)
            assert isinstance(parts, dict)
            assert parts == dict.fromkeys("abcd", b"\x07" * (PAYLOAD_LIMIT - 5))
            exact_run, beyond_run = (
                asyncio.to_thread(headrace, server_url, namespace, "start", "echoing", "-i", f"@{path}", "--wait")
                for path in (exact, beyond)
            )
            started, refused = await asyncio.gather(exact_run, beyond_run)
    assert started.returncode == 0, started.stderr
    assert len(json.loads(started.stdout)) == PAYLOAD_LIMIT - 5
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: The payload has 1,048,577 bytes, the limit is 1,048,576. Store the data")
