"""The flow of the trouble test: waits for a signal, then one task."""

from __future__ import annotations

from headrace import Flow, Signal, task

go = Signal("go", int)


@task
def double(value: int) -> int:
    return 2 * value


flow = Flow("trouble", input=int).wait_for_signal(go).then(double)
