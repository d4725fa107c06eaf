"""The health reports in a root, which only workers with a problem write (`adawise.watch.health`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from adawise.sink import layout
from adawise.store.documents import Document, Line, Text, read_document
from adawise.store.store import Store
from adawise.watch.status.facts import WorkerStatus

_MISSED = 3.0  # reports that a worker may miss before it counts as gone


class _Wait(Document):
    seconds: float
    full: bool = False


class _HealthDocument(Document):
    worker: Line
    again_s: Annotated[float, Field(ge=0.0, le=1e9)]
    status: Line = ""
    reasons: tuple[Text, ...] = ()
    waits_for: dict[Line, _Wait] = Field(default_factory=dict)


def read_workers(store: Store, now_s: float) -> list[WorkerStatus]:
    """Return the workers that have reported a problem lately, sorted by name.

    A damaged document is skipped; `adawise pair list` names it.

    Args:
        store: the store of the root.
        now_s: seconds since the epoch, compared with the modification times of the store.

    Raises:
        StoreUnavailable, SettingsError: from the store.
    """
    return sorted(_workers(store, now_s), key=lambda worker: worker.worker)


def _workers(store: Store, now_s: float) -> Iterator[WorkerStatus]:
    for key in store.list(layout.WORKERS):
        written, data = store.modified(key), store.get(key)
        if written is None or data is None:
            continue  # deleted meanwhile: its worker has ended, or is well again
        try:
            report = read_document(_HealthDocument, data)
        except ValueError:
            continue
        age_s = now_s - written.timestamp()
        if report.status and age_s < _MISSED * report.again_s:
            yield WorkerStatus(
                worker=report.worker,
                age_s=max(0.0, age_s),
                status=report.status,
                reasons=report.reasons,
                waits_for={party: wait.seconds for party, wait in report.waits_for.items()},
                is_store_full=any(wait.full for wait in report.waits_for.values()),
            )
