"""Headrace: durable workflows on Redis. Everything an author needs is here."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as typing says, which takes a while to load
if TYPE_CHECKING:
    from typing import Any, Final

    from headrace_broker.retention import Retention

    from .bulk import Start, StartAnswer
    from .client import Client
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
        InstanceNotBlocked,
        InstanceNotEnded,
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
    from .handle import Handle
    from .retry import GiveUp, RetryAfter, RetryPolicy
    from .signals import Signal
    from .sync_client import SyncClient
    from .sync_handle import SyncHandle
    from .tasks import Task, task

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
    "InstanceNotBlocked",
    "InstanceNotEnded",
    "InstanceNotFound",
    "InvalidFlow",
    "InvalidInstanceId",
    "InvalidTask",
    "PayloadMismatch",
    "PayloadNotSerializable",
    "PayloadTooLarge",
    "Retention",
    "RetryAfter",
    "RetryPolicy",
    "ServerUnreachable",
    "Signal",
    "SignalTimeout",
    "Start",
    "StartAnswer",
    "SyncClient",
    "SyncHandle",
    "Task",
    "TaskContext",
    "TaskTimedOut",
    "UnknownRoute",
    "WorkerLost",
    "__version__",
    "current_context",
    "task",
]


_HOMES: Final = {
    "Client": ".client",
    "Flow": ".flow",
    "GiveUp": ".retry",
    "Handle": ".handle",
    "Retention": "headrace_broker.retention",
    "RetryAfter": ".retry",
    "RetryPolicy": ".retry",
    "Signal": ".signals",
    "Start": ".bulk",
    "StartAnswer": ".bulk",
    "SyncClient": ".sync_client",
    "SyncHandle": ".sync_handle",
    "Task": ".tasks",
    "TaskContext": ".context",
    "current_context": ".context",
    "task": ".tasks",
}
"""Where the names of `__all__` are defined; the others are errors."""


def __getattr__(name: str) -> Any:
    """Each name is loaded when it is first asked for: the command line begins at once, and a module of tasks needs
    neither the client nor its connection."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("headrace")
        except PackageNotFoundError:  # run from a source tree that is not installed
            return "0+unknown"
    if name == "errors":
        return import_module(".errors", __name__)
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES.get(name, ".errors"), __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
