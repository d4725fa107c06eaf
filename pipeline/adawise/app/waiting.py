"""The first answers of broker and store: a worker that starts while one is down waits, and joins no group meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from typing import TypeVar

from adawise.errors import AdawiseError, RetryableError
from adawise.worker.attempts import STARTING, Attempts, Backoff
from adawise.worker.events import Observer

T = TypeVar("T")

_POLL_S = 0.05  # how soon a signal is noticed
_LASTED_S = 60.0  # an attempt that worked for so long did not fail from the start


def await_store(
    check: Callable[[], None],
    observer: Observer,
    should_stop: Callable[[], bool],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Check a store again and again until it answers; return True then, and False if asked to stop before.

    `observer` is notified of each try that failed. The rest is as in `patiently`.

    Raises:
        SettingsError: the store cannot create what is absent, or will never answer.
        ChainError: the root is of another layout.
    """
    try:
        answered(check, observer, should_stop, clock=clock, sleep=sleep)
    except KeyboardInterrupt:
        return False
    return True


def answered(
    attempt: Callable[[], T],
    observer: Observer,
    should_stop: Callable[[], bool],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return the result of `attempt`, as in `patiently`; notify `observer` of each failed try, and of their end."""
    attempts = Attempts(observer)
    found = patiently(attempt, partial(attempts.failed, STARTING), should_stop, clock=clock, sleep=sleep)
    attempts.ended(STARTING)
    return found


def patiently(
    attempt: Callable[[], T],
    failed: Callable[[AdawiseError, float], object],
    should_stop: Callable[[], bool],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return the result of `attempt`, called again and again while broker or store do not answer.

    A try runs in a thread that does not keep the process alive.

    Args:
        attempt: the call.
        failed: called with the error of each try that failed, and the seconds until the next one.
        should_stop: returns True to stop.
        clock: returns seconds, for the waits between tries.
        sleep: waits so many seconds.

    Raises:
        KeyboardInterrupt: `should_stop` returned True meanwhile. Other errors of the attempt are raised, too.
    """
    backoff = Backoff()
    while not should_stop():
        if not backoff.due(clock()):
            sleep(_POLL_S)
            continue
        tried = _in_a_thread(attempt)
        while not tried.done() and not should_stop():
            wait([tried], timeout=_POLL_S)
        if not tried.done():
            break
        try:
            return tried.result()
        except RetryableError as error:
            failed(error, backoff.failed(clock()))
    raise KeyboardInterrupt


def again_and_again(
    attempt: Callable[[], T],
    failed: Callable[[AdawiseError, float], object],
    should_stop: Callable[[], bool],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T | None:
    """Return the result of `attempt`, which runs until `should_stop`, and is begun again after each outage.

    `failed` is called as in `patiently`. None if asked to stop while it waited.
    """
    backoff = Backoff()
    while not should_stop():
        began_s = clock()
        try:
            return attempt()
        except RetryableError as error:
            if clock() - began_s > _LASTED_S:
                backoff.succeeded()
            failed(error, backoff.failed(clock()))
        except KeyboardInterrupt:
            return None
        while not (should_stop() or backoff.due(clock())):
            sleep(_POLL_S)
    return None


def _in_a_thread(call: Callable[[], T]) -> Future[T]:
    """Return the future of the call, made in a thread that does not keep the process alive.

    A store that hangs would otherwise keep it for half a minute.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="first-answer", daemon=True).start()
    return future
