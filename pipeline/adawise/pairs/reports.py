"""The reports that workers write into their root: on their pairs, and on what is wrong with them.

A worker writes one after an order about pairs, or while it has a problem (`adawise.watch.health`). `adawise pair` and
`adawise status` read them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field

from adawise.console import print_text
from adawise.errors import ChainError
from adawise.output.compaction.delete import now_of
from adawise.pairs.orders import REPORT_S
from adawise.records import PairKey
from adawise.sink import layout
from adawise.store.documents import Count, Document, Line, Text, read_document
from adawise.store.store import Store
from adawise.text import as_duration

_MISSED = 3  # missing reports after which a worker counts as gone; one that ends in order removes its report
_LONGEST = 1 << 16  # characters of a text
_FORGOTTEN_S = 86_400.0  # seconds after which the report of a worker that was killed is ignored


def _cut(value: object) -> object:
    # an error may name a path that is not UTF-8
    return value[:_LONGEST].encode(errors="replace").decode() if isinstance(value, str) else value


Cut = Annotated[Text, BeforeValidator(_cut)]
"""The beginning of a text of any length, such as the message of an error, so that a worker can report it."""


class ReportOnPair(Document):
    """The state of a pair in a worker, and how alpha is chosen with it: "" where it is not loaded."""

    state: Line  # serves, ready, loading, failed or former
    why: Cut = ""
    method: Cut = ""


class ReportOnPartition(Document):
    """The pair that serves a partition, from an offset on."""

    model_config = ConfigDict(populate_by_name=True)

    pair: Line
    config: Line = ""  # "" in reports of earlier versions
    first: Annotated[Count, Field(alias="from")]

    @property
    def key(self) -> PairKey:
        """The key of the pair."""
        return PairKey(self.pair, self.config)


class ReportOnLoad(Document):
    """The cost of loading a pair."""

    seconds: float
    bytes: Count


class ReportOnShadow(Document):
    """Batches that the shadow did, and those too late for their segment; why it was given up, if it was."""

    done: Count
    late: Count
    seconds: float
    failed: Cut


class PairsReport(Document):
    """The part of a report that is on pairs: pairs by number, partitions by number, loads by the id of the pair."""

    pairs: dict[Count, ReportOnPair]
    partitions: dict[Count, ReportOnPartition]
    loads: dict[Line, ReportOnLoad]
    shadow: ReportOnShadow | None = None


class Wait(Document):
    """The time for which something has failed that a worker waits for; `full`: a store has no room."""

    seconds: float
    full: bool = False


class WorkerReport(PairsReport):
    """A worker's whole report. `status` is "" while nothing is wrong with it; `waits_for` is by what it waits for."""

    worker: Line
    again_s: Annotated[float, Field(ge=0.0, le=1e9)]  # within which the next report is due
    status: Line = ""
    reasons: tuple[Cut, ...] = ()
    waits_for: dict[Line, Wait] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reported:
    """The last report of a worker, and how long ago it came."""

    report: WorkerReport
    written: datetime
    age_s: float

    @property
    def worker(self) -> str:
        """The worker's name."""
        return self.report.worker

    @property
    def is_here(self) -> bool:
        """False for a worker that was killed or hangs: several of its reports are missing."""
        return self.age_s < _MISSED * self.report.again_s

    @property
    def absence(self) -> str:
        """A sentence that says since when a worker that is gone has not reported."""
        return (
            f"{self.worker} is gone: it was killed or is stuck; its last report was at "
            f"{self.written.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}, {as_duration(self.age_s)} ago, and the others do not "
            "wait for it"
        )

    def state(self, number: int) -> str:
        """Return the state of a pair; "" if the worker has not started on it."""
        return self.report.pairs[number].state if number in self.report.pairs else ""

    def in_words(self, number: int, otherwise: str) -> str:
        """Return the state of a pair and the reason for it; `otherwise` if the worker has not started on it."""
        if (found := self.report.pairs.get(number)) is None:
            return otherwise
        return found.state + (f": {found.why}" if found.why else "")


@dataclass(frozen=True, slots=True)
class DamagedReport:
    """A report that cannot be read: its key, the reason, and its age."""

    key: str
    why: str
    age_s: float

    @property
    def is_here(self) -> bool:
        """True while the worker that wrote it may live: it replaces its report within this time."""
        return self.age_s < _MISSED * REPORT_S


def read_reports(store: Store, now: datetime | None = None) -> tuple[list[Reported], list[DamagedReport]]:
    """Return the reports of the workers of a root, by name, and those that are damaged; none older than a day.

    Ages are at `now`; None: the present time by the store's clock, for which a file is written and removed.

    Raises:
        StoreUnavailable, SettingsError: from the store.
    """
    keys = [key for key in store.list(layout.WORKERS) if key.endswith(".json")]
    found, damaged = list[Reported](), list[DamagedReport]()
    for key in keys:
        now, age_s = now_of(store) if now is None else now, math.inf  # a link to itself has no time
        try:
            at = store.modified(key)
            if at is None:
                continue  # the worker ended meanwhile
            age_s = (now - at).total_seconds()
            if age_s > _FORGOTTEN_S:
                continue
            if (data := store.get(key)) is not None:
                found.append(Reported(read_document(WorkerReport, data), at, max(0.0, age_s)))
        except (ValueError, ChainError) as error:  # a damaged report must not hide the others
            damaged.append(DamagedReport(key, str(error), age_s))
    return sorted(found, key=lambda each: each.worker), damaged


def print_damaged(store: Store, damaged: Sequence[DamagedReport]) -> None:
    """Print which reports are ignored."""
    for each in damaged:
        text = f"{store}: {each.key}: expected a worker's report on its pairs, but {each.why}; it is ignored"
        print_text(text, sys.stderr)
