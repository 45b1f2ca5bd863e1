"""Horses, rq workers, bridges and keepers that die, and tasks that are to stop: what is reported, and what is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from headrace_broker.connection import call
from headrace_broker.messages import ResultMessage
from support.feeding import Feed
from support.waiting import wait_until

from .conftest import PATIENCE, STREAM, RqWorker, StartRq, is_alive, rq_keys, until_clean

pytestmark = [pytest.mark.real_only, pytest.mark.leaves_keys("namespace"), pytest.mark.servers("redis")]

LEASE_MS = 30_000
"""Longer than any test waits: nothing here is found out by a lease that ends."""


def still_works(feed: Feed, worker: RqWorker) -> None:
    result = feed.result(worker.hand_out("double", 4), PATIENCE)
    assert result.outcome == "completed", result


def test_a_killed_horse_is_lost_at_once(feed: Feed, start: StartRq, tmp_path: Path) -> None:
    worker = start(lease_ms=LEASE_MS)
    message, horse, _ = worker.begin(tmp_path / "blocked")
    os.kill(horse, signal.SIGKILL)
    assert feed.result(message).outcome == "lost"
    still_works(feed, worker)
    until_clean(feed)


@pytest.mark.full_only
def test_a_killed_rq_worker_loses_its_task_and_is_replaced(feed: Feed, start: StartRq, tmp_path: Path) -> None:
    worker = start(lease_ms=LEASE_MS)
    message, horse, rq_worker = worker.begin(tmp_path / "blocked")
    queued = worker.hand_out("double", 1)
    wait_until(lambda: call(feed.link, "EXISTS", f"rq:job:{queued.dispatch}"), PATIENCE, "a second job")
    os.kill(rq_worker, signal.SIGKILL)
    assert feed.result(message).outcome == "lost"
    wait_until(lambda: not is_alive(horse), why="the horse dies with its rq worker")
    assert feed.result(queued, PATIENCE).outcome == "completed"
    until_clean(feed)


@pytest.mark.full_only
def test_a_killed_bridge_takes_all_with_it_and_is_replaced(feed: Feed, start: StartRq, tmp_path: Path) -> None:
    worker = start(lease_ms=1000)  # the bridge tells its keeper what has begun, six times a lease
    message, horse, rq_worker = worker.begin(tmp_path / "blocked")
    os.kill(worker.bridge(), signal.SIGKILL)
    wait_until(lambda: not is_alive(horse) and not is_alive(rq_worker), why="they die with the bridge")
    assert feed.result(message).outcome in ("lost", "returned")
    feed.revoke(message, STREAM)  # as the commit does that takes the report
    still_works(feed, worker)
    until_clean(feed)


def test_a_revoked_task_is_killed_and_a_queued_one_never_runs(feed: Feed, start: StartRq, tmp_path: Path) -> None:
    worker = start(lease_ms=LEASE_MS)
    first, horse, _ = worker.begin(tmp_path / "first")
    second = worker.hand_out("block", str(tmp_path / "second"))
    wait_until(lambda: call(feed.link, "EXISTS", f"rq:job:{second.dispatch}"), PATIENCE, "a queued job")
    for message in (second, first):
        feed.revoke(message, STREAM)
    wait_until(lambda: not is_alive(horse), PATIENCE, "the horse to be killed")
    still_works(feed, worker)
    until_clean(feed)
    assert not (tmp_path / "second").exists()
    assert len(feed.of(ResultMessage)) == 1, "nothing is reported of what was revoked"


@pytest.mark.full_only
def test_revocations_that_were_not_heard_come_with_the_next_renewal(feed: Feed, start: StartRq, tmp_path: Path) -> None:
    worker = start(lease_ms=1000)
    message, horse, _ = worker.begin(tmp_path / "blocked")
    feed.revoke(message, STREAM, publish=False)
    wait_until(lambda: not is_alive(horse), PATIENCE, "the horse to be killed")
    until_clean(feed)


def test_sigterm_lets_a_task_finish_and_hands_back_the_queued(feed: Feed, start: StartRq, tmp_path: Path) -> None:
    worker = start(lease_ms=LEASE_MS)
    running, _, _ = worker.begin(tmp_path / "blocked")
    queued = worker.hand_out("double", 1)
    wait_until(lambda: call(feed.link, "EXISTS", f"rq:job:{queued.dispatch}"), PATIENCE, "a queued job")
    family = worker.family()
    worker.stop()
    assert feed.result(queued, PATIENCE).outcome == "returned"
    (tmp_path / "blocked").unlink()
    assert feed.result(running, PATIENCE).outcome == "completed"
    assert worker.ended() == 0
    assert not [pid for pid in family if is_alive(pid)]
    assert rq_keys(feed) == []
    assert call(feed.link, "KEYS", f"rq:workers:*{feed.namespace.keys.ns}*") == []


@pytest.mark.full_only
def test_after_the_grace_the_rest_is_returned(feed: Feed, start: StartRq, tmp_path: Path) -> None:
    worker = start(lease_ms=LEASE_MS, grace_ms=200)
    running, horse, _ = worker.begin(tmp_path / "blocked")
    worker.stop()
    assert feed.result(running, PATIENCE).outcome == "returned"
    assert worker.ended() == 0
    assert not is_alive(horse)
    assert rq_keys(feed) == []


@pytest.mark.full_only
def test_everything_dies_with_the_keeper(feed: Feed, start: StartRq, tmp_path: Path) -> None:
    worker = start(lease_ms=LEASE_MS)
    message, horse, _ = worker.begin(tmp_path / "blocked")
    family = worker.family()
    assert horse in family
    worker.stop(signal.SIGKILL)
    worker.ended()
    wait_until(lambda: not [pid for pid in family if is_alive(pid)], PATIENCE, "all to die")
    assert feed.results() == {}
    # What it left in RQ goes when nobody holds the entry any more.
    feed.revoke(message, STREAM)
    call(feed.link, "DEL", *rq_keys(feed))
