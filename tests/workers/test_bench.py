"""The work bench alone: what its slots come to."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
import uvloop

from headrace import task
from headrace.tasks import AnyTask
from headrace_broker import messages
from headrace_broker.clock import ServerClock
from headrace_broker.keys import Keys
from headrace_broker.messages import TaskMessage
from headrace_broker.tasks import Delivery, Source
from headrace_broker.values import Value, inline
from headrace_workers.bench import Bench
from headrace_workers.executors import Threads
from headrace_workers.outbox import Outbox
from headrace_workers.slots import Stop
from headrace_workers.wear import Limits, Wear


class Sent:
    """An outbox that keeps the outcomes."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def result(self, source: Source, entry: str, message: messages.ResultMessage, payload: bytes | None = None) -> None:
        self.outcomes.append(message.outcome)


class StoppedClock:
    def now(self) -> int:
        return 1


@task
async def nothing() -> None: ...


async def _resolve(message: TaskMessage) -> Value:
    return message.value


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("why", "outcomes"), [("revoked", []), ("timed_out", ["timed_out"]), ("returned", ["returned"])]
)
def test_a_task_that_is_stopped_before_its_first_step_frees_its_slot(
    loop: object, why: Stop, outcomes: list[str]
) -> None:
    sent = Sent()

    async def scenario() -> None:
        known: dict[str, AnyTask] = {"nothing": nothing}
        bench = Bench(
            *("keeper.1", 2, known, cast(Outbox, sent), Threads(1), cast(ServerClock, StoppedClock()), _resolve),
            patience=0.05,
            changed=asyncio.Event(),
            wear=Wear(Limits(), resident=lambda: 0, soon=lambda why: None, out=lambda why: None),
            worn=lambda why: None,
            begins=lambda key, entry: None,
        )
        keys = Keys("ns").partition(0)
        message = TaskMessage(
            *("i", "inc", 1, "flow", "nothing", "nothing", "0-1ab-1-0", 1, 1, 1, 1, 0),
            alone=True,
            timeout_ms=0,
            at=0,
            value=inline(b"\xc0"),
        )
        source = Source(keys, "default", keys.tasks("default"))
        bench.receive([Delivery(source, "1-0", messages.pack(message))])
        assert bench.free == 0
        (held,) = bench.unfinished
        bench.stop(held, why)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert bench.free == 2
        assert not bench.abandoned
        assert held.timer is None

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        runner.run(scenario())
    assert sent.outcomes == outcomes
