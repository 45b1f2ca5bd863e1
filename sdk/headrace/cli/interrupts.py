"""SIGTERM and SIGHUP end a command as Ctrl-C does, so that it gives back what it holds: else they would kill it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType
from typing import Final

_AS_CTRL_C: Final = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def as_ctrl_c() -> Generator[None]:
    """What takes signals itself, as `worker` does, replaces this while it runs. Nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    in_background = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as a shell without job control starts it

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        if in_background:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)  # which asyncio.run takes for itself while it runs

    # Ignored means that somebody wants us to live on: nohup.
    chosen = [number for number in _AS_CTRL_C if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in chosen}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
