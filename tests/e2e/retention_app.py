"""The flow of the retention tests: its input is what fills the server."""

from __future__ import annotations

from headrace import Flow, task


@task
def measure(text: str) -> int:
    return len(text)


flow = Flow("measure", input=str).then(measure)
