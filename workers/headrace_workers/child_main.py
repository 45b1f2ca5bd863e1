"""The main of a child process: `python -m headrace_workers.child_main FD PARENT`. Started by keepers only."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable
from random import Random, SystemRandom
from typing import Any, Final, NoReturn

from headrace.starting import schema_text
from headrace.targets import Registry, load_targets
from headrace_broker.backoff import Backoff, Waiting
from headrace_broker.connection import Server
from headrace_broker.conversations import Conversation, converse_async
from headrace_broker.errors import ConfigurationError, HeadraceError, ServerError, ServerUnreachable
from headrace_broker.keys import Keys
from headrace_broker.namespace import Namespace
from headrace_broker.registry import store_flow

from .child import ChildLoop, ChildSettings
from .cradle import begin
from .executors import Threads
from .options import ChildOptions
from .pipe import Failed, Ready
from .reporter import EXIT_BROKEN, Reporter
from .served import Served, serve
from .wear import Limits, resident_bytes, shown

EXIT_FAILED: Final = 1

_log = logging.getLogger("headrace.worker")


def main(arguments: list[str]) -> int:
    """Returns the exit status, or leaves by `os._exit` when threads that cannot be stopped would keep it."""
    reporter, options = begin(arguments, ChildOptions)
    try:
        registry = load_targets(options.targets)
        served = serve(registry.tasks.values(), options.queues)
        _check_memory(options.max_memory)
        if options.partitions is None:
            reporter.tell(_ready(served))
            _leave(0)
        namespace = Namespace(Keys(options.namespace), options.partitions)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            abandoned = runner.run(_work(options, namespace, registry, served, reporter))
            if abandoned:
                _leave(0)
    except HeadraceError as error:
        reporter.tell(Failed(f"{error}"))
        _leave(EXIT_FAILED)
    except Exception:  # noqa: BLE001 threads that still run must not keep a broken child
        _log.exception("This child broke down.")
        _leave(EXIT_BROKEN)
    return 0


async def _work(
    options: ChildOptions, namespace: Namespace, registry: Registry, served: Served, reporter: Reporter
) -> bool:
    """Works until drained; True if code still runs that cannot be stopped."""
    await _store_flows(options, registry, namespace)
    child = ChildLoop(
        ChildSettings(
            options.consumer,
            options.concurrency,
            options.lease_ms,
            options.grace_ms,
            limits=Limits(options.max_tasks, options.max_memory),
        ),
        served,
        namespace,
        Server(options.url),
        Threads(options.concurrency),
        monotonic=time.monotonic,
        random=SystemRandom(),
        begins=reporter.begins,
        worn=reporter.worn,
    )
    reporter.attach(asyncio.get_running_loop(), child)
    reporter.tell(_ready(served))
    await child.run()
    return child.abandoned


def _check_memory(limit: int | None) -> None:
    """Raises `ConfigurationError` for a limit that would have each child replaced after its first task."""
    if limit is not None and (size := resident_bytes()) >= limit:
        raise ConfigurationError(
            f"--max-memory {shown(limit)} is not enough: with the targets loaded, and before its first task, a child "
            f"takes {shown(size)}."
        )


def _ready(served: Served) -> Ready:
    return Ready(
        streams=list(served.streams),
        tasks=served.names("thread"),
        process_streams=list(served.process_streams),
        process_tasks=served.names("process"),
    )


async def _store_flows(options: ChildOptions, registry: Registry, namespace: Namespace) -> None:
    """Makes the flows of the targets known, however long the server is away or refuses."""
    backoff = Backoff(Random())
    waiting = Waiting(_log)
    while True:
        try:
            link = await Server(options.url).connect_async()
            try:
                for flow in registry.flows.values():
                    schema = schema_text(flow.input_schema())
                    await converse_async(link, _store(namespace.keys, flow, schema))
            finally:
                await link.close()
            return
        except (ServerUnreachable, ServerError) as error:
            waiting.say(error)
            await asyncio.sleep(backoff.next())


def _store(keys: Keys, flow: Any, schema: str) -> Conversation[bool]:
    return store_flow(keys, flow.definition, version=flow.version, schema=schema, retention=flow.retention)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _leave(status: int) -> NoReturn:
    """Without waiting for threads."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
