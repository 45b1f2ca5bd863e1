"""What RQ's keys say of jobs that rq workers of other keepers run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from headrace_broker.connection import call
from headrace_workers.rq.jobs import BEAT_SECONDS, Jobs, NewJob, View
from support.feeding import Feed

from .conftest import STREAM

pytestmark = [pytest.mark.real_only, pytest.mark.servers("redis")]


LEASE_MS = 10_000


@pytest.fixture
def jobs(server_url: str, namespace: str) -> Iterator[Jobs]:
    made = Jobs(server_url, namespace, [STREAM], LEASE_MS)
    yield made
    made.close()


def _queue(jobs: Jobs, feed: Feed, worker: str, status: str) -> str:
    message = feed.message("double", 1)
    jobs.enqueue([NewJob(message, STREAM, 0)])
    call(feed.link, "HSET", f"rq:job:{message.dispatch}", "status", status, "worker_name", worker)
    return message.dispatch


def test_an_rq_worker_of_ours_that_misses_its_beats_is_dead(jobs: Jobs, feed: Feed) -> None:
    views: dict[str, View] = {}
    left_of = {"neighbour.1.rq1": BEAT_SECONDS + 60, "neighbour.1.rq2": 51, "neighbour.1.rq3": 49, "stock": 49}
    for name, left in left_of.items():
        worker = f"{feed.namespace.keys.ns}-{os.getpid()}-{name}"
        job_id = _queue(jobs, feed, worker, "started")
        call(feed.link, "LREM", f"rq:queue:headrace:{feed.namespace.keys.ns}:default", 0, job_id)
        call(feed.link, "HSET", f"rq:worker:{worker}", "birth", "2026-01-01T00:00:00.000000Z")
        call(feed.link, "EXPIRE", f"rq:worker:{worker}", left)
        views[name] = jobs.look([(STREAM, job_id)])[job_id]
        jobs.discard([job_id])
        call(feed.link, "DEL", f"rq:worker:{worker}")
    assert views == {
        "neighbour.1.rq1": View("started", True),
        "neighbour.1.rq2": View("started", True),
        "neighbour.1.rq3": View("started", False),
        "stock": View("started", True),
    }


def test_tidying_leaves_the_failed_jobs_of_other_keepers(jobs: Jobs, feed: Feed) -> None:
    ours, theirs = (_queue(jobs, feed, f"{keeper}.1.rq1", "failed") for keeper in ("ours", "theirs"))
    registry = f"rq:failed:headrace:{feed.namespace.keys.ns}:default"
    for job_id in (ours, theirs):
        call(feed.link, "ZADD", registry, 4102444800, job_id)
    jobs.tidy("ours.")
    assert [call(feed.link, "EXISTS", f"rq:job:{job_id}") for job_id in (ours, theirs)] == [0, 1]
    jobs.discard([theirs])
    assert call(feed.link, "EXISTS", registry) == 0
