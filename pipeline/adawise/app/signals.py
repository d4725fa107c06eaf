"""SIGTERM and SIGINT, for every command that has something to finish."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""The exit code of a command that was asked to stop before it was done."""

_STOPS_WITHIN_S = 0.1


class StopRequest:
    """A request for an orderly end by a signal; call it to see whether there was one."""

    def __init__(self, on_stop: Callable[[], object]) -> None:
        self._on_stop = on_stop
        self._stopping = self._interrupts = False

    def __call__(self) -> bool:
        """Return True once a signal has come."""
        return self._stopping

    def wait_until(self, monotonic_s: float) -> bool:
        """Wait until this time of `time.monotonic` or a signal, and return True once a signal has come."""
        while not self._stopping and (left_s := monotonic_s - time.monotonic()) > 0.0:
            time.sleep(min(_STOPS_WITHIN_S, left_s))
        return self._stopping

    @contextmanager
    def interrupts(self) -> Iterator[None]:
        """Raise KeyboardInterrupt on the signal within this context: for a start, of which nothing has to be finished.

        A signal that came before raises it at once.
        """
        self._interrupts = True
        try:
            if self._stopping:
                raise KeyboardInterrupt
            yield
        finally:
            self._interrupts = False

    def received(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal. The second one ends the process at once, which is safe too."""
        if self._stopping:
            os._exit(128 + number)
        self._stopping = True
        self._on_stop()
        if self._interrupts:
            raise KeyboardInterrupt


@contextmanager
def stop_signals(on_stop: Callable[[], object] = lambda: None) -> Iterator[StopRequest]:
    """Let SIGTERM and SIGINT ask for an orderly end; the second of them ends the process at once."""
    request = StopRequest(on_stop)
    previous = {number: signal.signal(number, request.received) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def ended_at_once(code: int = 0) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the process at once, while modules are loaded for seconds and nothing has begun.

    `code` is the exit code.
    """
    previous = {number: signal.signal(number, lambda *_: os._exit(code)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
