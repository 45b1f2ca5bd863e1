"""The main of an rq worker: `python -m headrace_workers.rq.worker_main PARENT NAME`. Started by a bridge's stable only.

RQ's own worker, unchanged, in a process that has imported the targets before: so a fork is all a horse costs.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from typing import Any, cast

import redis
import rq

from headrace_broker.connection import ANONYMOUS
from headrace_workers.cradle import log_to_stderr
from headrace_workers.spawn import die_with

from . import horse
from .jobs import BEAT_SECONDS
from .serializer import MessagePack
from .words import Died, Up, tell


def main(arguments: list[str]) -> int:
    parent, name = arguments
    die_with(int(parent))
    log_to_stderr(int(os.environ["HEADRACE_LOG_LEVEL"]))
    logging.getLogger("rq").setLevel(logging.ERROR)  # it tells of each horse that dies; so do we
    horse.warm()
    connection: Any = cast(Any, redis.Redis).from_url(os.environ["HEADRACE_RQ_URL"], **ANONYMOUS)
    worker = rq.Worker(
        json.loads(os.environ["HEADRACE_RQ_QUEUES"]),
        name=name,
        connection=connection,
        serializer=MessagePack,
        log_job_description=False,
        job_monitoring_interval=BEAT_SECONDS,
        work_horse_killed_handler=_killed,
    )
    gc.collect()
    gc.freeze()  # a collection in a horse would copy every page it looks at
    tell(Up())
    worker.work(logging_level="ERROR")
    return 0


def _killed(job: Any, pid: int, status: int, usage: object) -> None:
    tell(Died(job.id, status or 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
