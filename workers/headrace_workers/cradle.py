"""How every process that a keeper starts begins: dies with its keeper, hears its options, reports that it lives."""

from __future__ import annotations

import json
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Protocol, TypeVar

from .reporter import Reporter
from .spawn import die_with


class Options(Protocol):
    """What is common to them. `log_level` is a number of `logging`'s."""

    @property
    def lease_ms(self) -> int: ...
    @property
    def log_level(self) -> int: ...


P = TypeVar("P", bound=Options)


def begin(arguments: list[str], options: Callable[..., P]) -> tuple[Reporter, P]:
    """`arguments` are the pipe's descriptor and the keeper's pid; the reporter has been started.

    Raises `PipeError` if the keeper is gone.
    """
    descriptor, parent = (int(argument) for argument in arguments)
    die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ignore_signal)  # not SIG_IGN, which processes that a task starts would inherit
    reporter = Reporter(socket.socket(fileno=descriptor))
    chosen = options(**json.loads(reporter.configuration().settings))
    log_to_stderr(chosen.log_level)
    reporter.start(chosen.lease_ms / 6000)
    return reporter, chosen


def ignore_signal(number: int, frame: FrameType | None) -> None:
    """The keeper tells when to stop: Ctrl-C reaches its whole process group."""


def log_to_stderr(level: int) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
