"""The node kinds: one file each, and this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from headrace_orchestrator.engine.program import NodeKind

from .delay import Delay
from .fork import Fork
from .route import Route
from .signal import WaitForSignal
from .task import TaskNode

KINDS: Final[Mapping[str, NodeKind]] = {
    "task": TaskNode(),
    "delay": Delay(),
    "signal": WaitForSignal(),
    "fork": Fork(),
    "route": Route(),
}
