"""Headrace: durable workflows on Redis. Everything an author needs is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .context import TaskContext, current_context
from .errors import (
    ConfigurationError,
    FlowError,
    FlowNotFound,
    HeadraceError,
    InstanceBlocked,
    InstanceCancelled,
    InstanceExists,
    InstanceFailed,
    InstanceFinished,
    InstanceNotFound,
    InvalidFlow,
    InvalidInstanceId,
    InvalidTask,
    PayloadMismatch,
    PayloadNotSerializable,
    PayloadTooLarge,
    ServerUnreachable,
    SignalTimeout,
    TaskTimedOut,
    UnknownRoute,
    WorkerLost,
)
from .flow import Flow
from .retry import GiveUp, RetryAfter, RetryPolicy
from .signals import Signal
from .tasks import Task, task

if TYPE_CHECKING:
    from .client import Client
    from .handle import Handle

    __version__: str

__all__ = [
    "Client",
    "ConfigurationError",
    "Flow",
    "FlowError",
    "FlowNotFound",
    "GiveUp",
    "Handle",
    "HeadraceError",
    "InstanceBlocked",
    "InstanceCancelled",
    "InstanceExists",
    "InstanceFailed",
    "InstanceFinished",
    "InstanceNotFound",
    "InvalidFlow",
    "InvalidInstanceId",
    "InvalidTask",
    "PayloadMismatch",
    "PayloadNotSerializable",
    "PayloadTooLarge",
    "RetryAfter",
    "RetryPolicy",
    "ServerUnreachable",
    "Signal",
    "SignalTimeout",
    "Task",
    "TaskContext",
    "TaskTimedOut",
    "UnknownRoute",
    "WorkerLost",
    "__version__",
    "current_context",
    "task",
]


def __getattr__(name: str) -> Any:
    """The client brings the connection and its settings, which a module of tasks can do without: it comes on demand."""
    if name == "Client":
        from .client import Client

        return Client
    if name == "Handle":
        from .handle import Handle

        return Handle
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("headrace")
        except PackageNotFoundError:  # run from a source tree that is not installed
            return "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
