"""The work-horse: what an RQ job runs, in a process that `rq worker` has forked for it.

It resolves the value, runs the task, and itself sends the result with the acknowledgement and the delete of the entry,
in one transaction. Where the server is comes from the environment, never from the job.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from random import SystemRandom
from types import FrameType
from typing import Any, Final, NamedTuple, TypeVar

from headrace.context import ACTIVE, TaskContext
from headrace.targets import load_targets
from headrace.tasks import AnyTask, Task
from headrace_broker import codec, messages, payloads, tasks
from headrace_broker.backoff import Backoff
from headrace_broker.clock import ASK, milliseconds
from headrace_broker.connection import Command, Link, Reply, Server, exchange, raise_error
from headrace_broker.errors import HeadraceError, ServerError, ServerUnreachable, TaskTimedOut
from headrace_broker.ids import DispatchId
from headrace_broker.keys import GROUP, Keys
from headrace_broker.messages import Failure, Outcome, ResultMessage, TaskMessage
from headrace_broker.tasks import Settlement, Source
from headrace_broker.values import Value
from headrace_workers import reports
from headrace_workers.attempt import Output, failure_of, output_of
from headrace_workers.spawn import die_with

from .words import Begun, Ending, Settled, tell

FUNCTION: Final = f"{__name__}.run"
"""How an RQ job names it."""
EXIT_FAILED: Final = 1

_IMPORTED_IN: Final = os.getpid()
"""Of our rq workers, which import this before they fork. A stock one leaves that to the horse."""

T = TypeVar("T")

_log = logging.getLogger("headrace.worker")


class Stable(NamedTuple):
    """What every horse of an rq worker shares: read and imported once, before the fork."""

    server: Server
    keys: Keys
    tasks: Mapping[str, AnyTask]


@cache
def stable() -> Stable:
    """From the environment: HEADRACE_URL, HEADRACE_NAMESPACE and HEADRACE_TARGETS, a JSON list.

    Raises `KeyError` for what is missing there, `TargetError` for targets that cannot be loaded.
    """
    targets = load_targets(json.loads(os.environ["HEADRACE_TARGETS"]))
    return Stable(Server(os.environ["HEADRACE_URL"]), Keys(os.environ["HEADRACE_NAMESPACE"]), targets.tasks)


def warm() -> None:
    """Does what is slow the first time, so that no horse has to: the import of pydantic alone takes 0.2 s."""
    found = stable()
    for task in found.tasks.values():
        if task.isolation == "process":
            for parameter in task.signature.values:
                with suppress(HeadraceError):  # the task that cannot run will say why
                    codec.adapter(task.signature.annotation(parameter.name))
            if task.is_async:
                asyncio.run(asyncio.sleep(0))
    output_of(None, Task(warm))
    failure_of(ValueError())
    found.server.connect().close()


class OutOfTime(BaseException):
    """Raised in the task when its time is up. No `Exception`, so that a task does not take it for its own."""


def run(raw: bytes, stream: str, partition: int) -> None:
    """Runs one hand-out: a packed `TaskMessage` of that stream."""
    try:
        # A parent that has died since the fork is not its parent any more.
        die_with(_IMPORTED_IN if os.getpid() != _IMPORTED_IN else os.getppid())
        signal.setitimer(signal.ITIMER_REAL, 0)  # RQ's own alarm knows whole seconds only
        message = messages.expect(messages.unpack(raw), TaskMessage)
        keys = stable().keys.partition(partition)
        Horse(message, Source(keys, stream, keys.tasks(stream))).run()
    except BaseException:  # noqa: BLE001
        _log.exception("A work-horse failed.")
        os._exit(EXIT_FAILED)  # its rq worker tells the bridge


class Horse:
    """One job."""

    def __init__(self, message: TaskMessage, source: Source) -> None:
        self._message = message
        self._source = source
        self._entry = DispatchId.parse(message.dispatch).entry
        self._worker = os.environ.get("RQ_WORKER_ID", "rq")
        self._random = SystemRandom()

    def run(self) -> None:
        message = self._message
        if (began := self._begin()) is None:
            return
        task = stable().tasks.get(message.task)
        if task is None:
            self._settle(reports.ended(message, "unknown", self._worker))
            return
        if message.timeout_ms > 0:
            started = reports.started(message, began, self._worker)
            self._ask(("XADD", self._source.partition.events, "*", "m", messages.pack(started)))
        tell(Begun(message.dispatch))
        clock = time.monotonic()
        outcome, ended = self._perform(task)
        duration_ms = int((time.monotonic() - clock) * 1000)
        result = reports.ended(message, outcome, self._worker, began=began, duration_ms=duration_ms)
        if isinstance(ended, Output):
            self._settle(result._replace(value=ended.value, route=ended.route), ended.large)
        else:
            self._settle(result._replace(failure=ended))

    def _begin(self) -> int | None:
        """The server's time (ms); None if nobody holds the entry: it was settled or revoked meanwhile."""
        look: Command = ("XPENDING", self._source.key, GROUP, self._entry, self._entry, 1)
        leased, now = self._until_done(lambda link: exchange(link, [look, ASK]))
        if isinstance(leased, ServerError) and tasks.is_no_group(leased):
            return None
        if not raise_error(leased):
            return None
        return milliseconds(now)

    # The task.

    def _perform(self, task: AnyTask) -> tuple[Outcome, Output | Failure]:
        message = self._message
        context = TaskContext(message)
        ACTIVE.set(context)
        try:
            value = self._resolve(message.value)
            with _within(message.timeout_ms):
                args, kwargs = task.bind(value, context)
                result: Any = task.fn(*args, **kwargs)
                if task.is_async:
                    result = asyncio.run(result)
            return "completed", output_of(result, task)
        except OutOfTime as error:
            timed_out = TaskTimedOut(reports.time_out(message))
            return "timed_out", failure_of(timed_out.with_traceback(error.__traceback__))
        except BaseException as error:  # noqa: BLE001 also SystemExit: it is the task's failure
            return "failed", failure_of(error, task)

    def _resolve(self, value: Value) -> Value:
        """The value with all it names. Raises `MessageError`."""
        if value[:1] in (b"m", b"j"):
            return value
        outputs = self._source.partition.outputs(self._message.incarnation)
        return _drive(payloads.resolve(_Asking(self._ask_all), value, outputs))

    # The server.

    def _settle(self, result: ResultMessage, large: bytes | None = None) -> None:
        tell(Ending(result.dispatch))
        self._until_done(lambda link: self._save(link, result, large))
        tell(Settled(result.dispatch))

    def _save(self, link: Link, result: ResultMessage, large: bytes | None) -> None:
        """One try. A large value gets a new name each time, for a commit may have taken the last one: see `outbox`."""
        partition = self._source.partition
        write: tuple[str, bytes] | None = None
        if large is not None:
            name = f"{self._random.getrandbits(72):018x}"
            value, write = payloads.store(large, lambda: partition.value(result.incarnation, name))
            result = result._replace(value=value)
        settlement = Settlement(messages.pack(result), self._source, self._entry, write)
        tasks.check_settled(exchange(link, tasks.settle(partition, [settlement])))

    def _ask(self, *commands: Command) -> list[Reply]:
        """The replies, however long the server is away or refuses. Only for what may be asked twice."""
        return self._until_done(lambda link: [raise_error(reply) for reply in exchange(link, commands)])

    def _ask_all(self, commands: Sequence[Command]) -> list[Reply]:
        return self._until_done(lambda link: exchange(link, commands))

    def _until_done(self, what: Callable[[Link], T]) -> T:
        backoff = Backoff(self._random)
        while True:
            try:
                return what(self._link)
            except (ServerUnreachable, ServerError) as error:
                if backoff.failures in (0, 10):
                    _log.warning("A work-horse waits for the server: %s", error)
                self.__dict__.pop("_link", None)
                time.sleep(backoff.next())

    @cached_property
    def _link(self) -> Link:
        return stable().server.connect()


class _Asking:
    """`AsyncLink` for `payloads.resolve`, of which a horse has nothing else to do meanwhile."""

    def __init__(self, ask: Callable[[Sequence[Command]], list[Reply]]) -> None:
        self._ask = ask

    async def exchange(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        return self._ask(commands)

    async def close(self) -> None: ...


def _drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waited")


@contextmanager
def _within(timeout_ms: int) -> Generator[None]:
    """Raises `OutOfTime` in the body when its time is up. The bridge kills what does not end by it."""

    def fire(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    if timeout_ms > 0:
        signal.signal(signal.SIGALRM, fire)
        signal.setitimer(signal.ITIMER_REAL, timeout_ms / 1000)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
