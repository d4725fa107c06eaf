"""The analysis as a function: from roots to tables, for notebooks and other programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from typing_extensions import override

from adawise.errors import SettingsError

try:
    from duckdb import DuckDBPyConnection

    from adawise.drift.accuracy import over_time
    from adawise.drift.analyse import analyse as analysed
    from adawise.drift.baseline import History
    from adawise.drift.calendar import hours
    from adawise.drift.clocks import parse_clocks
    from adawise.drift.collect import Collected, collect
    from adawise.drift.result import (
        AccuracyOverTime,
        AccuracyPoint,
        Camera,
        CameraCondition,
        DriftEvent,
        Series,
        fleet_of,
    )
    from adawise.drift.tables import Tables
    from adawise.labels.join import label
    from adawise.sink.read.duckdb_rows import translated
except ModuleNotFoundError as error:
    raise SettingsError(
        f"the analysis needs the package {error.name}; install it with: pip install 'adawise[report]'"
    ) from error

_MICROSECONDS = pa.timestamp("us", tz="UTC")
_OF_CAMERAS = (
    *("stream_id", "batches", "images", "rejected", "first_us", "last_us", "alpha", "alpha_low", "alpha_high"),
    *("alpha_last", "forward_equivalents", "confidence", "endpoints_agree", "drift", "travelled"),
)
_OF_EVENTS = (
    *("stream_id", "incident", "severity", "measure", "shape"),
    *("since_us", "until_us", "earliest_us", "latest_us"),
)
_NAMED = 5


@dataclass(frozen=True, slots=True, eq=False)
class AnalysisTable:
    """A table: Arrow's, or as pandas or Polars have it, where they are installed. Times are UTC, microseconds."""

    arrow: pa.Table

    def to_pandas(self) -> Any:
        """As `pandas.DataFrame`."""
        return self.arrow.to_pandas()

    def to_polars(self) -> Any:
        """As `polars.DataFrame`."""
        return import_module("polars").from_arrow(self.arrow)

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    @override
    def __repr__(self) -> str:
        return f"<AnalysisTable of {len(self)} rows: {', '.join(self.arrow.column_names)}>"

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """So that whatever reads Arrow (DuckDB, Polars, pandas) takes it as it is."""
        return self.arrow.__arrow_c_stream__(requested_schema)


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """What `adawise drift` finds, as tables.

    `events`: a row each, the worst incident first. `cameras`: a row each, the one that drifted farthest first.
    `series`: a row a camera and bin. `conditions`: a row a camera and condition, the most frequent first and rare ones
    as one; `hours` are those of the day that it is typical for. `accuracy`: a row a camera, time and way to know it
    (`how`), with a band of 95 %; those of all cameras together have no `stream_id`. `fleet`: how many cameras are ok,
    changed, failing and silent.
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
    """What happened on these cameras, over all that is watched: see `docs/guide/drift.md`.

    Args:
        root: what `sink.root` named, or several.
        streams: cameras; None: all.
        since, until: a datetime with a time zone, or its text; what is judged.
        reference: how long before `since` is learned from; None: nothing, or 28 days for a new baseline.
        baseline: file that keeps what was learned; it is read and brought up to date.
        labels: a file of labels; None: those under the root, and the producer's.
        smallest: the smallest change of alpha that is looked for, in (0, 1].
        time_zone: whose clocks days and nights go by: an IANA name for all cameras, or one for each camera (names with
            wildcards), with "*" for the rest.

    Raises:
        SettingsError: no worker wrote there, nothing lies in that time, or a camera is not known; with the nearest
            names.
        ChainError: a file of a root is damaged.
        ValueError: a time that is none, or has no zone; a time zone that nobody knows; `smallest` out of its range; a
            reference without `since`, or of less than a day.
    """
    if not 0 < smallest <= 1:
        raise ValueError(f"expected smallest in (0, 1], got {smallest}")
    if (reference is not None or baseline is not None) and since is None:
        raise ValueError("expected since beside reference or baseline: what was before it is learned from")
    if reference is not None and reference < timedelta(days=1):
        raise ValueError(f"expected a reference of a day or more, got {reference}")
    zones = {"*": time_zone} if isinstance(time_zone, str) else time_zone
    clocks = parse_clocks([f"{name}={zone}" for name, zone in zones.items()])
    roots = [root] if isinstance(root, str) else list(root)
    wanted = None if streams is None else list(streams)
    begin, end = _moment(since), _moment(until)
    learned_s = None if reference is None else reference.total_seconds()
    history = History(
        roots,
        since=begin,
        until=end,
        reference_s=learned_s,
        file=None if baseline is None else Path(baseline),
        streams=wanted,
    )
    read_from = history.read_from
    with (
        translated(*roots),
        closing(Tables(roots, streams=wanted, since=read_from, until=end, levels={})) as tables,
    ):
        check_known(roots, tables.connection, wanted)
        known = label(tables.connection, roots, file=labels)
        found = history.before(
            collect(
                tables.connection,
                is_labelled=known.labelled > 0,
                judged_us=history.judged_us,
                width_us=history.width_us,
                silent_us=history.silent_us,
                end_us=tables.end_us(),
            )
        )
        cameras, events = analysed(found, roots, smallest=smallest, clocks=clocks)
    history.save()
    return Analysis(
        _events(events),
        _cameras(cameras),
        _series(found),
        _conditions(cameras),
        _accuracy([(None, over_time(list(found.binned.values()))), *((c.stream_id, c.accuracy) for c in cameras)]),
        fleet_of([camera.stream_id for camera in cameras], events),
    )


def check_known(roots: Sequence[str], connection: DuckDBPyConnection, streams: Sequence[str] | None) -> None:
    """Raises SettingsError if one of the cameras has no batch in `traces`, with the nearest of those that have."""
    if streams is None:
        return
    seen = {name for (name,) in connection.execute("SELECT DISTINCT stream_id FROM traces").fetchall()}
    missing = [name for name in streams if name not in seen]
    if not missing:
        return
    with closing(Tables(roots, streams=None, since=None, until=None, levels={})) as whole:
        names = sorted(n for (n,) in whole.connection.execute("SELECT DISTINCT stream_id FROM traces").fetchall())
    unknown = [name for name in missing if name not in names]
    if unknown:
        nearest = get_close_matches(unknown[0], names, _NAMED, 0.4) or names[:_NAMED]
        raise SettingsError(
            f"no camera {unknown[0]!r} under {' and '.join(roots)}; of {len(names)} cameras the nearest are "
            f"{', '.join(map(repr, nearest))}"
        )


def _moment(at: datetime | str | None) -> datetime | None:
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    if moment is not None and moment.tzinfo is None:
        raise ValueError(f"expected a time with its zone, such as 2026-11-25T08:00:00Z, got {at!r}")
    return moment


def _events(events: Sequence[DriftEvent]) -> AnalysisTable:
    rows = [
        {name.removesuffix("_us"): getattr(event, name) for name in _OF_EVENTS}
        | {"from": event.before, "to": event.after, "unit": event.unit, "detail": event.detail, "score": event.score}
        | {"cause": event.causes[0].sentence if event.causes else None}
        | {f"cost_{name}": getattr(event.cost, name, None) for name in ("accuracy", "low", "high", "how")}
        | {"next": event.next}
        for event in events
    ]
    text, number = pa.string(), pa.float64()
    times = {name.removesuffix("_us"): _MICROSECONDS for name in _OF_EVENTS if name.endswith("_us")}
    kinds = dict.fromkeys(("stream_id", "severity", "measure", "shape", "unit", "detail", "cause", "next"), text)
    kinds |= dict.fromkeys(("from", "to", "score", "cost_accuracy", "cost_low", "cost_high"), number)
    kinds |= {"incident": pa.int64(), "cost_how": text, **times}
    order = [*(name.removesuffix("_us") for name in _OF_EVENTS), "from", "to", "unit", "detail", "score", "cause"]
    order += ["cost_accuracy", "cost_low", "cost_high", "cost_how", "next"]
    return AnalysisTable(pa.Table.from_pylist(rows, pa.schema([(name, kinds[name]) for name in order])))


def _cameras(cameras: Sequence[Camera]) -> AnalysisTable:
    columns = {}
    for name in _OF_CAMERAS:
        values = [getattr(camera, name) for camera in cameras]
        columns[name.removesuffix("_us")] = pa.array(values, _MICROSECONDS if name.endswith("_us") else None)
    columns["changes"] = pa.array([len(camera.changes) for camera in cameras], pa.int64())
    columns["silences"] = pa.array([len(camera.silences) for camera in cameras], pa.int64())
    return AnalysisTable(pa.table(columns))


def _conditions(cameras: Sequence[Camera]) -> AnalysisTable:
    rows = [(camera.stream_id, each) for camera in cameras for each in camera.calendar.conditions]
    columns = {"stream_id": pa.array([name for name, _ in rows], pa.string())}
    kinds = {"name": pa.string(), "first_us": _MICROSECONDS, "last_us": _MICROSECONDS, "hours": pa.string()}
    kinds |= dict.fromkeys(("share", "alpha", "objective", "alarms"), pa.float64())
    for each in fields(CameraCondition):
        values = [hours(of) if each.name == "hours" else getattr(of, each.name) for _, of in rows]
        columns[each.name.removesuffix("_us")] = pa.array(values, kinds.get(each.name, pa.int64()))
    return AnalysisTable(pa.table(columns))


def _accuracy(known: Sequence[tuple[str | None, AccuracyOverTime]]) -> AnalysisTable:
    rows = [(name, point) for name, over in known for point in over.points]
    columns = {"stream_id": pa.array([name for name, _ in rows], pa.string())}
    kinds = {"since_us": _MICROSECONDS, "until_us": _MICROSECONDS, "how": pa.string(), "images": pa.int64()}
    for each in fields(AccuracyPoint):
        values = [getattr(point, each.name) for _, point in rows]
        columns[each.name.removesuffix("_us")] = pa.array(values, kinds.get(each.name, pa.float64()))
    return AnalysisTable(pa.table(columns))


def _series(found: Collected) -> AnalysisTable:
    names = [column.name for column in fields(Series)]
    parts = [(stream_id, series) for stream_id, series in found.series.items() if len(series.time_us)]
    streams = np.repeat([name for name, _ in parts], [len(series.time_us) for _, series in parts])
    columns = {"stream_id": pa.array(streams, pa.string())}
    for name in names:
        values = np.concatenate([np.asarray(getattr(series, name)) for _, series in parts])
        columns[name.removesuffix("_us")] = pa.array(values, _MICROSECONDS if name.endswith("_us") else None)
    return AnalysisTable(pa.table(columns))
