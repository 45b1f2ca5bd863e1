"""What an orchestrator can be told."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_broker.retention import DEFAULT_RULE, Rule


@dataclass(frozen=True)
class OrchestratorOptions:
    """Times are in ms. `partitions` None takes the namespace's count (4 if it is new); `metrics_port` 0: none."""

    url: str = "redis://localhost:6379/0"
    namespace: str = "headrace"
    partitions: int | None = None
    ownership_ms: int = 5000
    lease_ms: int = 10_000
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9464
    max_deliveries: int = 5
    batch: int = 512
    """Entries read from each inbox at once."""
    window: int = 512
    """Dispatches of one partition and queue that may be unsettled before new instances wait."""
    starts_per_second: int = 16
    """New instances read whatever the window says, per partition."""
    retention: Rule = DEFAULT_RULE
    """How long ended instances are kept, where their flow does not say."""
    cached_instances: int = 20_000
    cached_value_bytes: int = 32 * 1024 * 1024
