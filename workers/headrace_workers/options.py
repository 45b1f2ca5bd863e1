"""What a keeper tells its child. A module of its own, so that keepers need not import the SDK."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ChildOptions:
    """Crosses the pipe as JSON. `partitions` None: only load the targets and say what they serve (see `trial`)."""

    url: str
    namespace: str
    partitions: int | None
    targets: list[str]
    queues: list[str] | None
    consumer: str
    concurrency: int
    lease_ms: int
    grace_ms: int
    log_level: int
    max_tasks: int | None = None
    max_memory: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))
