"""What a command's exit code means."""

from __future__ import annotations

from typing import Final

from headrace_broker.errors import (
    AccessDenied,
    ConfigurationError,
    EmbeddedServerError,
    FlowError,
    FlowNotFound,
    HeadraceError,
    InstanceNotFound,
    InvalidInstanceId,
    InvalidRequest,
    PayloadError,
    QuarantineEntryNotFound,
    ServerFull,
    ServerUnreachable,
    UnknownSignal,
)

OK: Final = 0
FAILED: Final = 1
"""The answer is no: the instance failed or was cancelled, the id is taken, the time is up, the check did not hold."""
USAGE: Final = 2
"""A wrong option, input or setting, or an extra that is not installed; doing it again changes nothing."""
NOT_FOUND: Final = 3
UNREACHABLE: Final = 4
WARNINGS: Final = 5
"""`doctor` found nothing but warnings."""
INTERRUPTED: Final = 130

HELP: Final = (
    "Exit codes: 0 done; 1 the answer is no (failed, cancelled, id taken, time up); 2 wrong option, input or setting; "
    "3 no such instance, flow or entry; 4 server unreachable or full; 5 warnings only (doctor); 130 Ctrl-C or SIGTERM."
)


def exit_code(error: BaseException) -> int:
    """The exit code of a command that raised `error`."""
    match error:
        case KeyboardInterrupt():
            return INTERRUPTED
        case FlowNotFound() | InstanceNotFound() | QuarantineEntryNotFound():
            return NOT_FOUND
        case ServerUnreachable() | EmbeddedServerError() | ServerFull():
            return UNREACHABLE
        case (
            ConfigurationError()
            | FlowError()
            | PayloadError()
            | InvalidInstanceId()
            | InvalidRequest()
            | UnknownSignal()
            | AccessDenied()
        ):
            return USAGE
        case HeadraceError() | TimeoutError():
            return FAILED
        case _:
            return FAILED
