"""A trial of whether a store does what it has to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from adawise.errors import SettingsError, StoreUnavailable
from adawise.sink.claims import OVERWRITES
from adawise.store.store import AlreadyExists, Store, open_store

_TICK_S = 1.0  # object stores report whole seconds
_TRIAL = b"by adawise doctor\n"


def prove_store(root: str) -> None:
    """Create a key twice, which the store must refuse, and replace it whole. No key or folder is left.

    Raises:
        SettingsError: the store does not do so, or may not be written.
        StoreUnavailable: the store does not answer.
    """
    with _trial(root) as (store, key):
        with suppress(AlreadyExists):  # the first call succeeded, and its answer was lost
            store.create(key, _TRIAL)
        try:
            store.create(key, b"again\n")
        except AlreadyExists:
            pass
        else:
            raise SettingsError(OVERWRITES.format(store))
        replaced = _TRIAL + uuid4().bytes
        store.put(key, replaced)
        if (found := store.get(key)) != replaced:
            raise SettingsError(
                f"{store}: expected a store that returns what was written last, but it has "
                f"{'nothing' if found is None else f'{len(found)} other bytes'}: another store answers in its "
                "place, or it returns old copies. Use a local folder or a consistent store"
            )


def ahead_s(root: str) -> float:
    """Return by how many seconds the store's clock is ahead of ours, by a key that is written and deleted.

    Negative if it is behind; 0 if the difference lies within the time of the write and the store's resolution. Raises
    SettingsError and StoreUnavailable.
    """
    with _trial(root) as (store, key):
        began = time.time()
        store.create(key, _TRIAL)
        ended = time.time()
        written = store.modified(key)
        if written is None:
            raise StoreUnavailable(f"{store}: {key} was created but cannot be found; try again")
    at = written.timestamp()
    # The write was between `began` and `ended`, and its time may be rounded down by a tick.
    return max(at - ended, 0.0) + min(at + _TICK_S - began, 0.0)


@contextmanager
def _trial(root: str) -> Iterator[tuple[Store, str]]:
    """Yield a store with an unused key, which is deleted at the end with the folders that were made."""
    folders = [] if "://" in root else [Path(root), *Path(root).parents]
    made = [folder for folder in folders if not folder.exists()]
    store, key = open_store(root), f"_check-{uuid4().hex}"
    try:
        yield store, key
    finally:
        store.delete(key)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
