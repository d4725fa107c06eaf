"""SIGTERM and SIGINT, for every command that has something to finish."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""The exit code of a command that was told to stop before it was done."""


@contextmanager
def stop_signals(on_stop: Callable[[], object] = lambda: None) -> Iterator[Callable[[], bool]]:
    """SIGTERM and SIGINT ask for an orderly end; the second of them ends the process at once, which is safe too."""
    stopping = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            os._exit(128 + number)
        stopping = True
        on_stop()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: stopping
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
