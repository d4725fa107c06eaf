"""The analysis as a function: from roots to tables, for notebooks and other programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from typing_extensions import override

from adawise.errors import SettingsError

try:
    from adawise.labels.arrays import concatenated, empty
    from adawise_drift import analyse as analysis
    from adawise_drift.changes.times import parse_clocks
    from adawise_drift.events.calendar import hours
    from adawise_drift.events.result import AccuracyPoint, CameraCondition, Series
    from adawise_drift.report import Report
    from adawise_drift.request import DriftRequest
except ModuleNotFoundError as error:
    raise SettingsError(
        f"the analysis needs the package {error.name}; install it with: pip install 'adawise[report]'"
    ) from error

_OF_CAMERAS = (
    *("stream_id", "batches", "images", "rejected", "first_us", "last_us", "alpha", "alpha_low", "alpha_high"),
    *("alpha_last", "forward_equivalents", "confidence", "endpoints_agree", "drift", "travelled"),
)
_OF_EVENTS = (
    *("stream_id", "incident", "severity", "measure", "shape"),
    *("since_us", "until_us", "earliest_us", "latest_us"),
)
_TEXTS = frozenset(
    ("stream_id", "severity", "measure", "shape", "unit", "detail", "cause", "cost_how", "next", "name", "hours", "how")
)
_COUNTS = frozenset(("incident", "batches", "images", "rejected", "changes", "silences", "number", "visits", "returns"))


@dataclass(frozen=True, slots=True, eq=False)
class AnalysisTable:
    """A table: Arrow's, or as pandas or Polars have it, where they are installed. Times are UTC, microseconds.

    Example:
        `found` is what `adawise.analyse` returned:

        >>> len(found.cameras)
        5
        >>> found.cameras.arrow.select(["stream_id", "images"]).slice(0, 1).to_pylist()
        [{'stream_id': 'yard', 'images': 5760}]
        >>> found.cameras.to_pandas()["rejected"].sum() == found.cameras.to_polars()["rejected"].sum() == 900
        True
    """

    arrow: pa.Table

    def to_pandas(self) -> Any:
        """Return the table as `pandas.DataFrame`."""
        return self.arrow.to_pandas()

    def to_polars(self) -> Any:
        """Return the table as `polars.DataFrame`."""
        return import_module("polars").from_arrow(self.arrow)

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    @override
    def __repr__(self) -> str:
        return f"<AnalysisTable of {len(self)} rows: {', '.join(self.arrow.column_names)}>"

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the table as a stream, by which whatever reads Arrow (DuckDB, Polars, pandas) takes it as it is."""
        return self.arrow.__arrow_c_stream__(requested_schema)


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """The results of `adawise drift`, as tables.

    `events`: a row each, the worst incident first. `cameras`: a row each, the one that drifted farthest first.
    `series`: a row a camera and bin. `conditions`: a row a camera and condition, the most frequent first and rare ones
    as one; `hours` are those of the day that it is typical for. `accuracy`: a row a camera, time and way to know it
    (`how`), with a band of 95 %; those of all cameras together have no `stream_id`. `fleet`: how many cameras are ok,
    changed, failing and silent.

    Example:
        `found` is what `adawise.analyse` returned:

        >>> found.fleet
        {'ok': 1, 'changed': 1, 'failing': 3, 'silent': 0}
        >>> event = found.events.arrow.slice(0, 1).to_pylist()[0]
        >>> event["severity"], event["stream_id"], event["shape"], event["since"].isoformat()
        ('failing', 'yard', 'step', '2026-06-01T12:00:00+00:00')
    """

    events: AnalysisTable
    cameras: AnalysisTable
    series: AnalysisTable
    conditions: AnalysisTable
    accuracy: AnalysisTable
    fleet: Mapping[str, int]


def analyse(
    root: str | Sequence[str],
    *,
    streams: Iterable[str] | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    reference: timedelta | None = None,
    baseline: str | Path | None = None,
    labels: str | None = None,
    smallest: float = 0.1,
    time_zone: str | Mapping[str, str] = "UTC",
) -> Analysis:
    """Return what happened on these cameras, over all that is watched: see `docs/guide/drift.md`.

    Args:
        root: what `sink.root` named, or several.
        streams: cameras; None: all.
        since: judge what happened from this time on: a datetime with a time zone, or its text; None: from the start.
        until: judge what happened before this time, in the same forms; None: up to the end.
        reference: how long before `since` is learned from; None: nothing, or 28 days for a new baseline.
        baseline: file that keeps what was learned; it is read and brought up to date.
        labels: a file of labels; None: those under the root, and the producer's.
        smallest: the smallest change of alpha that is looked for, in (0, 1].
        time_zone: whose clocks days and nights go by: an IANA name for all cameras, or one for each camera (names with
            wildcards), with "*" for the rest.

    Example:
        >>> found = adawise.analyse("runs/yard", streams=["yard"], since="2026-06-01T06:00:00Z")
        >>> sorted({event["measure"] for event in found.events.arrow.to_pylist()})[:2]
        ['alpha', 'confidence']
        >>> found.cameras.arrow.column("stream_id").to_pylist()
        ['yard']

    Raises:
        SettingsError: no worker wrote there, nothing lies in that time, or a camera is not known; with the nearest
            names.
        ChainError: a file of a root is damaged.
        ValueError: a time that is none, or has no zone; a time zone that is not known; `smallest` out of its range; a
            reference without `since`, or of less than a day.
    """
    zones = {"*": time_zone} if isinstance(time_zone, str) else time_zone
    request = DriftRequest(
        roots=(root,) if isinstance(root, str) else tuple(root),
        streams=None if streams is None else tuple(streams),
        since=_moment(since),
        until=_moment(until),
        reference=reference,
        baseline=None if baseline is None else Path(baseline),
        labels=labels,
        smallest=smallest,
        clocks=parse_clocks([f"{name}={zone}" for name, zone in zones.items()]),
    )
    report = analysis.analyse(request)
    analysis.finish(request, report)
    return Analysis(
        events=_events(report),
        cameras=_cameras(report),
        series=_series(report),
        conditions=_conditions(report),
        accuracy=_accuracy(report),
        fleet=report.fleet,
    )


def _moment(at: datetime | str | None) -> datetime | None:
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    if moment is not None and moment.tzinfo is None:
        raise ValueError(f"expected a time with its zone, such as 2026-11-25T08:00:00Z, got {at!r}")
    return moment


def _events(report: Report) -> AnalysisTable:
    columns = _columns(report.events, *_OF_EVENTS)
    columns |= {"from": [event.before for event in report.events], "to": [event.after for event in report.events]}
    columns |= _columns(report.events, "unit", "detail", "score")
    columns["cause"] = [event.causes[0].sentence if event.causes else None for event in report.events]
    costs = _columns([event.cost for event in report.events], "accuracy", "low", "high", "how")
    columns |= {f"cost_{name}": values for name, values in costs.items()}
    return _table(columns | _columns(report.events, "next"))


def _cameras(report: Report) -> AnalysisTable:
    columns = _columns(report.cameras, *_OF_CAMERAS)
    columns["changes"] = [len(camera.changes) for camera in report.cameras]
    columns["silences"] = [len(camera.silences) for camera in report.cameras]
    return _table(columns)


def _conditions(report: Report) -> AnalysisTable:
    rows = [(camera.stream_id, each) for camera in report.cameras for each in camera.calendar.conditions]
    found = [each for _, each in rows]
    columns = _columns(found, *(each.name for each in fields(CameraCondition))) | {"hours": [*map(hours, found)]}
    return _table({"stream_id": [name for name, _ in rows], **columns})


def _accuracy(report: Report) -> AnalysisTable:
    rows: list[tuple[str | None, AccuracyPoint]] = [(None, point) for point in report.accuracy.points]
    rows += [(camera.stream_id, point) for camera in report.cameras for point in camera.accuracy.points]
    columns = _columns([point for _, point in rows], *(each.name for each in fields(AccuracyPoint)))
    return _table({"stream_id": [name for name, _ in rows], **columns})


def _series(report: Report) -> AnalysisTable:
    cameras = sorted((each for each in report.cameras if len(each.series.time_us)), key=lambda each: each.stream_id)
    streams = np.repeat([each.stream_id for each in cameras], [len(each.series.time_us) for each in cameras])
    series = concatenated([each.series for each in cameras] or [empty(Series)])
    return _table({"stream_id": streams.tolist(), **{each.name: getattr(series, each.name) for each in fields(series)}})


def _columns(rows: Sequence[object], *names: str) -> dict[str, Any]:
    """Return fields of these by name; None of what has none."""
    return {name: [getattr(row, name, None) for row in rows] for name in names}


def _table(columns: Mapping[str, Any]) -> AnalysisTable:
    """Return a table of columns by name; the name of a time ends with `_us` here, and without it there."""
    arrays = [pa.array(values, _kind(name)) for name, values in columns.items()]
    return AnalysisTable(pa.table(arrays, [name.removesuffix("_us") for name in columns]))


def _kind(name: str) -> pa.DataType:
    if name.endswith("_us"):
        return pa.timestamp("us", tz="UTC")
    return pa.string() if name in _TEXTS else pa.int64() if name in _COUNTS else pa.float64()
