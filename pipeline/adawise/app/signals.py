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

_Function = Callable[[int, FrameType | None], object]
_Handler = _Function | int | signal.Handlers | None
_BEFORE_START: dict[int, _Handler] = {}  # what `end_start_at_once` replaced


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
    with _handled(request.received):
        yield request


@contextmanager
def ended_at_once(code: int) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the process at once with this code, while modules are loaded for seconds."""
    with _handled(lambda *_: os._exit(code)):
        yield


def end_start_at_once() -> None:
    """Let SIGTERM and SIGINT end the process at once with 0, until other handlers are installed by this module.

    It is for the start of a service, of which nothing has to be finished.
    """
    _BEFORE_START.update(_install(lambda *_: os._exit(0)))


def end_at_once(code: Callable[[], object]) -> None:
    """Let SIGTERM and SIGINT call this function, which ends the process: for the end, when all work is done."""
    _BEFORE_START.clear()
    _install(lambda *_: code())


@contextmanager
def _handled(handler: _Function) -> Iterator[None]:
    # The handlers of the start are not put back: after the work they would end a program that failed with 0.
    previous = _install(handler) | _BEFORE_START
    _BEFORE_START.clear()
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _install(handler: _Function) -> dict[int, _Handler]:
    return {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
