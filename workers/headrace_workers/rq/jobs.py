"""RQ's side of the bridge: jobs in its queues, through RQ's own library.

Sync, for one thread that does nothing else. Everything may be done twice, so the caller repeats what was lost.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final, Literal, NamedTuple, cast

import redis
import rq
import rq.command
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, StartedJobRegistry

from headrace_broker import messages
from headrace_broker.errors import ServerError, ServerUnreachable
from headrace_broker.keys import queue_of
from headrace_broker.messages import TaskMessage

from .horse import FUNCTION
from .serializer import MessagePack

FAILURE_SECONDS: Final = 60
"""How long RQ keeps a job that died, if no bridge removes it before."""
_TIMEOUT: Final = 5.0
_NEVER: Final = -1
BEAT_SECONDS: Final = 1
"""How often an rq worker of ours says that it lives while it runs a job, which may be another keeper's."""
_ALLOWED_MS: Final = 60_000
"""Each time RQ lets its key live for its beat and so much more: with less left, it was silent for the difference."""
_LEAST_SILENCE_MS: Final = 3000
_OURS: Final = re.compile(r"\.rq\d+\Z")
"""How the names of our rq workers end. Stock ones beat as they were told to."""
_ENDED: Final = frozenset({JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED})

# What RQ leaves half typed.
_send_stop_job_command: Any = cast(Any, rq.command).send_stop_job_command
_prepare_data: Any = cast(Any, rq.Queue).prepare_data
_fetch_job: Any = cast(Any, Job).fetch

Where = Literal["queued", "taken", "started", "gone"]
"""Of a job: in RQ's queue; popped by an rq worker; its horse has begun; no such job any more."""


class NewJob(NamedTuple):
    message: TaskMessage
    stream: str
    partition: int


class View(NamedTuple):
    """Where a job is, and for a started one whether its rq worker is known to RQ."""

    where: Where
    alive: bool = True


def queue_name(namespace: str, stream: str) -> str:
    """The name of the RQ queue for a task stream. One for all keepers, so that any rq worker may join."""
    return f"headrace:{namespace}:{queue_of(stream)}"


class Jobs:
    """The RQ queues of these task streams. Raises `ServerUnreachable` and `ServerError`, whatever it is asked.

    An rq worker of ours that runs a job and is silent for a lease has died.
    """

    def __init__(self, url: str, namespace: str, streams: Iterable[str], lease_ms: int) -> None:
        self._silence_ms = max(_LEAST_SILENCE_MS, lease_ms)
        options: Any = {
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": _TIMEOUT,
            "socket_connect_timeout": _TIMEOUT,
        }
        self._redis: Any = cast(Any, redis.Redis).from_url(url, **options)
        self._queues: dict[str, Any] = {
            stream: rq.Queue(queue_name(namespace, stream), connection=self._redis, serializer=MessagePack)
            for stream in streams
        }

    def enqueue(self, jobs: Collection[NewJob]) -> None:
        """Queues them, but for those that RQ knows already: the reply of an earlier try was lost."""
        with _translated():
            known = self._existing([job.message.dispatch for job in jobs])
            for stream, queue in self._queues.items():
                fresh = [job for job in jobs if job.stream == stream and job.message.dispatch not in known]
                if fresh:
                    queue.enqueue_many([_prepare(job) for job in fresh])

    def _existing(self, ids: Iterable[str]) -> set[str]:
        wanted = list(ids)
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in wanted:
                pipeline.exists(Job.key_for(job_id))
            return {job_id for job_id, found in zip(wanted, pipeline.execute(), strict=True) if found}

    def withdraw(self, jobs: Collection[tuple[str, str]]) -> set[str]:
        """Takes (stream, id) out of the queues and deletes them; returns those that now certainly will not run."""
        with _translated():
            asked = list(jobs)
            with self._redis.pipeline(transaction=False) as pipeline:
                for stream, job_id in asked:
                    pipeline.lrem(self._queues[stream].key, 1, job_id)
                removed = {job_id for (_, job_id), count in zip(asked, pipeline.execute(), strict=True) if count}
            for job_id in removed:
                self._delete(job_id)
            return removed

    def stop(self, job_ids: Iterable[str]) -> None:
        """Has the rq worker kill the horse of each that runs."""
        with _translated():
            for job_id in job_ids:
                try:
                    _send_stop_job_command(self._redis, job_id, serializer=MessagePack)
                except (NoSuchJobError, InvalidJobOperation):
                    continue

    def sweep(self, job_ids: Iterable[str]) -> set[str]:
        """Deletes those that have ended, however they did; returns those of which nothing is left."""
        with _translated():
            done: set[str] = set()
            for job_id in job_ids:
                job = self._fetch(job_id)
                if job is None or job.get_status(refresh=False) in _ENDED:
                    self._delete(job_id)
                    done.add(job_id)
            return done

    def discard(self, job_ids: Iterable[str]) -> None:
        """Deletes these, whatever they are doing."""
        with _translated():
            for job_id in job_ids:
                self._delete(job_id)

    def look(self, jobs: Collection[tuple[str, str]]) -> dict[str, View]:
        """Where these (stream, id) are."""
        with _translated():
            asked = list(jobs)
            with self._redis.pipeline(transaction=False) as pipeline:
                for stream, job_id in asked:
                    pipeline.lpos(self._queues[stream].key, job_id)
                    pipeline.hmget(Job.key_for(job_id), "status", "worker_name")
                replies: list[Any] = pipeline.execute()
            found: dict[str, View] = {}
            for (_, job_id), position, (status, worker) in zip(asked, replies[::2], replies[1::2], strict=True):
                if position is not None:
                    found[job_id] = View("queued")
                elif status is None:
                    found[job_id] = View("gone")
                elif status == JobStatus.STARTED.value.encode():
                    found[job_id] = View("started", self._lives(worker))
                else:
                    found[job_id] = View("taken")
            return found

    def _lives(self, worker: bytes | None) -> bool:
        key = rq.Worker.redis_worker_namespace_prefix + (worker or b"").decode()
        if not self._redis.hexists(key, "birth") or self._redis.hexists(key, "death"):
            return False
        return _OURS.search(key) is None or self._redis.pttl(key) >= _ALLOWED_MS - self._silence_ms

    def bury(self, worker: str) -> set[str]:
        """Removes an rq worker that is dead from RQ's books, with the jobs its horses ran; returns their ids."""
        with _translated():
            left = self._started(worker)
            for job_id in left:
                self._delete(job_id)
            key = rq.Worker.redis_worker_namespace_prefix + worker
            dead: Any = rq.Worker.find_by_key(key, connection=self._redis, serializer=MessagePack)
            if dead is not None:
                dead.register_death()
            return left

    def tidy(self, dead: str) -> None:
        """Removes what an earlier bridge of the same keeper left: `dead` is how the names of its rq workers begin."""
        with _translated():
            for queue in self._queues.values():
                for job_id in _registry(FailedJobRegistry, queue).get_job_ids():
                    if (job := self._fetch(job_id)) is None or (job.worker_name or "").startswith(dead):
                        self._delete(job_id)
            prefix = rq.Worker.redis_worker_namespace_prefix
            for key in rq.Worker.all_keys(connection=self._redis):
                if key.startswith(prefix + dead):
                    self.bury(key.removeprefix(prefix))

    def _started(self, worker: str) -> set[str]:
        """The ids of jobs that horses of this rq worker have begun."""
        found: set[str] = set()
        for queue in self._queues.values():
            for execution in _registry(StartedJobRegistry, queue).get_job_ids(cleanup=False):
                job_id = execution.partition(":")[0]
                job = self._fetch(job_id)
                if job is not None and job.worker_name == worker:
                    found.add(job_id)
        return found

    def _fetch(self, job_id: str) -> Any:
        try:
            return _fetch_job(job_id, connection=self._redis, serializer=MessagePack)
        except NoSuchJobError:
            return None

    def _delete(self, job_id: str) -> None:
        """Removes every key of a job, and its id from all lists and registries."""
        for queue in self._queues.values():
            queue.intermediate_queue.remove(job_id)
            _registry(FailedJobRegistry, queue).remove(job_id)
        job = self._fetch(job_id)
        if job is not None:
            try:
                job.delete()
            except ValueError:  # a record of its execution has expired
                self._redis.delete(job.key, job.execution_registry.key)

    def close(self) -> None:
        self._redis.close()


def _registry(kind: Any, queue: Any) -> Any:
    return kind(queue=queue)


def _prepare(job: NewJob) -> Any:
    message = job.message
    # RQ kills a horse itself when no bridge does; the horse knows the exact time-out.
    seconds = -(-message.timeout_ms // 1000) if message.timeout_ms else _NEVER
    return _prepare_data(
        FUNCTION,
        args=(messages.pack(message), job.stream, job.partition),
        job_id=message.dispatch,
        description=f"{message.flow}/{message.node} of {message.instance}, attempt {message.attempt}",
        timeout=seconds,
        result_ttl=0,
        failure_ttl=FAILURE_SECONDS,
    )


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise ServerUnreachable(f"RQ's server: {error}") from error
    except redis.RedisError as error:
        raise ServerError(f"RQ's server: {error}") from error
