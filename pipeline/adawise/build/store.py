"""The store's first answer. A worker that starts while its store is down waits for it, and is in no group meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from adawise.errors import RetryableError, SettingsError
from adawise.sink.claims import OVERWRITES
from adawise.store.store import AlreadyExists, open_store
from adawise.worker.backoff import Backoff
from adawise.worker.observer import Observer

_LOOK_S = 0.05  # how soon a signal is noticed


def await_store(
    check: Callable[[], None],
    observer: Observer,
    should_stop: Callable[[], bool],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Check what lies in a store again and again until it answers; True then, False if told to stop before.

    `observer` is told of each try that failed. `clock` and `sleep` are of the waits between tries, in seconds.

    Raises:
        SettingsError: the store cannot create what is absent, or never will answer.
        ChainError: the root is of another layout.
    """
    backoff = Backoff()
    while not should_stop():
        if not backoff.due(clock()):
            sleep(_LOOK_S)
            continue
        tried = _in_a_thread(check)
        while not tried.done():
            if should_stop():
                return False
            wait([tried], timeout=_LOOK_S)
        try:
            tried.result()
        except RetryableError as error:
            observer.retry_scheduled(error, backoff.failed(clock()))
        else:
            return True
    return False


def prove_store(root: str) -> None:
    """Create a key twice, which the store must refuse, and delete it: nothing is left, also no folder that was made.

    Raises SettingsError if the store does not refuse, or may not be written; StoreUnavailable.
    """
    folders = [] if "://" in root else [Path(root), *Path(root).parents]
    made = [folder for folder in folders if not folder.exists()]
    store, key = open_store(root), f"_check-{uuid4().hex}"
    try:
        store.create(key, b"by adawise run --check\n")
        try:
            store.create(key, b"again\n")
        except AlreadyExists:
            return
        raise SettingsError(OVERWRITES.format(store))
    finally:
        store.delete(key)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _in_a_thread(call: Callable[[], None]) -> Future[None]:
    """What comes of the call. Its thread does not keep the process: a store that hangs would, for half a minute."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is raised where the result is asked for
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="store-check", daemon=True).start()
    return future
