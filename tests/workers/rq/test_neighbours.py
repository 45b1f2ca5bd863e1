"""Keepers share RQ's queues: a job of the one may run in a horse of the other, which dies without a word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace_workers.rq import worker_main
from headrace_workers.rq.bridge_main import BridgeOptions
from headrace_workers.rq.words import PIPE
from support.feeding import Feed
from support.waiting import wait_until

from .conftest import PATIENCE, STREAM, StartRq, is_alive, rq_keys, until_clean

pytestmark = [pytest.mark.real_only, pytest.mark.leaves_keys("namespace"), pytest.mark.servers("redis")]

LEASE_MS = 3000


@pytest.fixture
def neighbour(server_url: str, namespace: str) -> Iterator[subprocess.Popen[bytes]]:
    """An rq worker such as another keeper's bridge starts."""
    options = BridgeOptions(
        url=server_url,
        rq_url=server_url,
        namespace=namespace,
        partitions=4,
        targets=[str(Path(__file__).with_name("chores.py"))],
        streams=[STREAM],
        tasks=[],
        keeper="neighbour",
        consumer="neighbour.1",
        workers=1,
        lease_ms=LEASE_MS,
        grace_ms=0,
        log_level=20,
    )
    near, far = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", worker_main.__name__, str(os.getpid()), "neighbour.1.rq1"],
        env={**os.environ, **options.environment(), PIPE: str(far)},
        pass_fds=(far,),
        start_new_session=True,
    )
    os.close(far)
    assert os.read(near, 1), "it is up"
    yield process
    process.kill()
    process.wait()
    os.close(near)


@pytest.mark.full_only
def test_a_neighbour_that_dies_with_a_job_of_ours_is_noticed_after_a_lease(
    feed: Feed, start: StartRq, neighbour: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    ours = start(lease_ms=LEASE_MS)
    begun = [ours.begin(tmp_path / name) for name in ("first", "second")]  # each has one horse
    kept, _, _ = next(one for one in begun if one[2] != neighbour.pid)
    lost, horse, _ = next(one for one in begun if one[2] == neighbour.pid)
    killed = time.monotonic()
    os.killpg(neighbour.pid, signal.SIGKILL)
    os.kill(horse, signal.SIGKILL)
    assert feed.result(lost, PATIENCE).outcome == "lost"
    took = time.monotonic() - killed
    assert took < LEASE_MS / 1000 + 4, f"it took {took:.1f} s"
    wait_until(lambda: not is_alive(horse), PATIENCE, "the horse to be dead")
    assert kept.dispatch not in feed.results()
    for name in ("first", "second"):
        (tmp_path / name).unlink()
    assert feed.result(kept, PATIENCE).outcome == "completed"
    until_clean(feed)
    assert rq_keys(feed) == []
