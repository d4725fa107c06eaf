"""From two tables to arrays by camera: what the database does, so that what follows holds bins and not rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from duckdb import DuckDBPyConnection

from adawise.errors import SettingsError
from adawise.labels.arrays import Floats, Integers, equal_runs
from adawise_drift import queries
from adawise_drift.changes.times import bin_width_us
from adawise_drift.events.measures import Binned
from adawise_drift.events.mix import Mixed
from adawise_drift.events.result import Model, Series, Stays

ALL = ""  # the name under which a query's rows of all cameras go; no camera is called so

_EMPTY: dict[str, Any] = {
    column.name: np.empty(0, np.int64 if column.type == "Integers" else np.float64) for column in fields(Series)
}
NO_SERIES = Series(**_EMPTY)
_Columns = Mapping[str, Any]  # name -> array, of one query
_BINS = 720  # of a series: a month by the hour, and about as many points as a plot has pixels
_FEWEST = 60  # unless a camera has so few batches that most bins would be empty
_FINE = 20_000  # of a path
_WIDE = 3_000  # of what is watched: a month by the quarter of an hour
_OTHERS = "other classes"
_PIXELS = ("luminance", "contrast", "gradient", "laplacian", "colourfulness")


@dataclass(frozen=True, slots=True, eq=False)
class DriftPath:
    """A camera's alpha as changes are looked for in it: arrays `[points]`, one for each narrow bin that had batches."""

    first_us: Integers  # of its first batch
    last_us: Integers
    batches: Integers
    alpha: Floats  # mean over batches
    objective: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """All that the tables said. Mappings are by stream_id; `overall` is the series of all cameras together."""

    since_us: int
    judged_us: int  # what was before it is known as usual
    until_us: int
    bin_us: int
    fine_us: int
    wide_us: int
    mix_us: int
    facts: Mapping[str, Mapping[str, Any]]
    series: Mapping[str, Series]
    overall: Series
    paths: Mapping[str, DriftPath]
    classes: Mapping[str, Sequence[tuple[str, int, int, int]]]  # label, rows: in all, early, late; most frequent first
    reasons: Mapping[str, Mapping[str, int]]
    all_rejected: Mapping[str, int]  # since when, of cameras that have sent images since their last batch
    resets: Mapping[str, Mapping[str, int]]
    models: Mapping[str, tuple[Model, ...]]  # by camera, in the order in which they came; all cameras under ""
    rows: int  # images of these cameras of which the outcome is known, accepted or rejected
    starts: Mapping[str, Sequence[tuple[int, str]]]  # when a state was begun anew, and why: settings_changed, silent
    binned: Mapping[str, Binned]
    mixed: Mapping[str, Mixed]
    stays: Mapping[str, Stays]  # of the cameras of which conditions are known


def collect(
    connection: DuckDBPyConnection,
    done: Callable[[], object] = lambda: None,
    *,
    is_labelled: bool = False,
    judged_us: int = 0,
    width_us: int | None = None,
    silent_us: int | None = None,
    end_us: int | None = None,
) -> Collected:
    """Return what the tables `traces`, `predictions` and `levels` (alpha, reference) say.

    Args:
        connection: the database with these tables.
        done: called after each question.
        is_labelled: the view `labelled` (`adawise.labels.join`) is there, too.
        judged_us: numbers of cameras are of the time from then on; 0: of all.
        width_us: of the bins of what is watched, and of the mixes; None: by how long the time is.
        silent_us: the end of what is judged, if there is no batch of it; None: it has one.
        end_us: the last batch of any camera, where these tables are of some; None: they are of all.

    Raises SettingsError if there is no batch in them, and none is known of from before.
    """
    connection.execute(queries.SPANS)
    first_us, last_us, batches, cameras = connection.execute(queries.SPAN).fetchone() or (None, None, 0, 0)
    batches = batches or 0  # a sum of nothing is null
    if not batches and silent_us is None:
        raise no_batch()
    if batches and end_us is not None:
        last_us = max(last_us, end_us)
    if not batches or (silent_us is not None and last_us < judged_us):
        first_us, last_us = first_us or judged_us, max(judged_us, silent_us or 0)
    bins = min(_BINS, max(_FEWEST, batches // max(1, cameras) // 2))
    bin_us, fine_us, wide_us = (bin_width_us(last_us - first_us, most) for most in (bins, _FINE, _WIDE))
    wide_us, mix_us = (wide_us, bin_us) if width_us is None else (width_us, width_us)
    widths = {"bin": bin_us, "fine": fine_us, "wide": wide_us, "mix": mix_us}
    ask = _Question(connection, widths | {"judged": judged_us}, done)
    prepare(connection, mix_us)
    connection.execute(queries.judged_rows(is_labelled))
    connection.execute(queries.fine_bins(fine_us))
    facts = ask.by_stream(queries.CAMERAS)
    paths = {name: _path(columns) for name, columns in ask.by_stream(queries.PATHS).items()}
    binned = {name: _binned(columns) for name, columns in ask.by_stream(queries.WIDE).items()}
    seen = {name: _first(columns) for name, columns in facts.items()}
    series = _series(ask.by_stream(queries.TRACES), binned, bin_us)
    return Collected(
        since_us=first_us,
        judged_us=max(first_us, judged_us),
        until_us=last_us,
        bin_us=bin_us,
        fine_us=fine_us,
        wide_us=wide_us,
        mix_us=mix_us,
        facts={name: seen[name] if name in seen else unseen(path) for name, path in paths.items()},
        series={name: found for name, found in series.items() if name != ALL},
        overall=series.get(ALL, NO_SERIES),
        paths=paths,
        classes={name: _classes(columns) for name, columns in ask.by_stream(queries.CLASSES).items()},
        reasons=_counted(ask.by_stream(queries.REASONS), "reason", "rows"),
        all_rejected={
            name: int(columns["first_us"][0]) for name, columns in ask.by_stream(queries.ALL_REJECTED).items()
        },
        resets=_counted(ask.by_stream(queries.RESETS), "reset", "batches"),
        models={name: _models(columns) for name, columns in ask.by_stream(queries.MODELS).items()},
        rows=sum(int(columns["rows"][0]) for columns in facts.values()),
        starts={
            name: [(int(at), str(why)) for at, why in zip(columns["time_us"], columns["reset"], strict=True)]
            for name, columns in ask.by_stream(queries.STARTS).items()
        },
        binned={name: binned[name] for name in paths},
        mixed={
            name: _mixed(columns, max(1.0, binned[name].images.sum() / binned[name].batches.sum()))
            for name, columns in ask.by_stream(queries.MIXES).items()
            if name in paths
        },
        stays={name: Stays(**columns) for name, columns in ask.by_stream(queries.STAYS).items()},
    )


def no_batch() -> SettingsError:
    """Return the error for a time in which nothing was served."""
    return SettingsError("there is no batch of these cameras in this time; name others, or leave the bounds out")


def unseen(path: DriftPath) -> dict[str, Any]:
    """Return the facts of a camera that sent nothing in the time that is judged."""
    names = ("alpha", "alpha_low", "alpha_high", "forward_equivalents", "confidence", "endpoints_agree")
    numbers = dict.fromkeys(names, float("nan"))
    counts = {
        "batches": 0,
        "images": 0,
        "rejected": 0,
        "first_us": int(path.first_us[0]),
        "last_us": int(path.last_us[-1]),
    }
    return {**numbers, **counts, "alpha_last": float(path.alpha[-1])}


def prepare(connection: DuckDBPyConnection, mix_us: int) -> None:
    """Make the views and the table of `queries.measures`: of traces, and of rows where an earlier version wrote them.

    To be called after `queries.SPANS` was asked.
    """
    (last,) = connection.execute(queries.LAST_UNMEASURED).fetchone() or (None,)
    connection.execute(queries.measures(mix_us, last))


@dataclass(frozen=True, slots=True)
class _Question:
    """Asks with the widths of the bins filled in."""

    connection: DuckDBPyConnection
    given: Mapping[str, int]
    done: Callable[[], object]

    def columns(self, sql: str) -> dict[str, Any]:
        """Return the answer by column; what was NULL is nan in floats."""
        given = {name: value for name, value in self.given.items() if f"${name}" in sql}
        found = self.connection.execute(sql, given)
        columns = {name: _plain(column) for name, column in found.fetchnumpy().items()}
        self.done()
        return columns

    def by_stream(self, sql: str) -> dict[str, dict[str, Any]]:
        """Return the answer by camera and column, of a query whose rows are ordered by `stream_id`."""
        columns = self.columns(sql)
        names = columns.pop("stream_id")  # NULLs of a masked array come first
        names = names.filled(ALL) if isinstance(names, np.ma.MaskedArray) else names
        return {
            str(names[start]): {name: column[start:end] for name, column in columns.items()}
            for start, end in equal_runs(names)
        }


def _plain(column: Any) -> Any:
    if not isinstance(column, np.ma.MaskedArray) or column.dtype.kind == "O":
        return column
    if column.dtype.kind in "biu" and not np.any(column.mask):
        return column.data
    return np.ma.filled(column.astype(np.float64), np.nan)


def _first(columns: _Columns) -> dict[str, Any]:
    return {name: column[0].item() for name, column in columns.items() if name != "rows"}


def _series(traces: Mapping[str, _Columns], binned: Mapping[str, Binned], bin_us: int) -> dict[str, Series]:
    found = {}
    for name, columns in traces.items():
        at = columns["bin"]
        known = {column: values for column, values in columns.items() if column != "bin"}
        known |= (
            _coarser(binned[name], at, bin_us) if name in binned else dict.fromkeys(_PIXELS, np.full(len(at), np.nan))
        )
        found[name] = Series(time_us=at * bin_us, **known)
    return found


def _coarser(of: Binned, at: Integers, bin_us: int) -> dict[str, Floats]:
    """Return the pixel measures, which no query of wider bins has, in the bins `at`."""
    bins = of.time_us // bin_us
    kept = np.isin(bins, at)
    place = np.searchsorted(at, bins[kept])

    def mean(values: Floats) -> Floats:
        known = np.isfinite(values[kept]) * of.batches[kept]
        total = np.bincount(place, np.nan_to_num(values[kept]) * known, len(at))
        count = np.bincount(place, known, len(at))
        found: Floats = np.divide(total, count, out=np.full(len(at), np.nan), where=count > 0)
        return found

    return {name: mean(getattr(of, name)) for name in _PIXELS}


def _path(columns: _Columns) -> DriftPath:
    return DriftPath(*(columns[name] for name in DriftPath.__slots__))


def _binned(columns: _Columns) -> Binned:
    return Binned(*(columns[name] for name in Binned.__slots__))


def _mixed(columns: _Columns, images_per_batch: float) -> Mixed:
    """Return the mixes of rows that are ordered by bin; the label None stands for all other classes."""
    starts = np.flatnonzero(np.diff(columns["bin"], prepend=columns["bin"][0] - 1))
    place = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(columns["bin"]))))
    named = [_OTHERS if label is np.ma.masked or label is None else str(label) for label in columns["label"]]
    labels = sorted(set(named), key=lambda name: (name == _OTHERS, name))
    counts = np.zeros((len(starts), len(labels)), np.int64)
    counts[place, [labels.index(name) for name in named]] = columns["rows"]
    batches = np.maximum(1, np.rint(counts.sum(axis=1) / images_per_batch)).astype(np.int64)
    return Mixed(np.minimum.reduceat(columns["time_us"], starts), batches, tuple(labels), counts)


def _classes(columns: _Columns) -> list[tuple[str, int, int, int]]:
    names = ("label", "rows", "early_rows", "late_rows")
    return [(str(row[0]), *map(int, row[1:])) for row in zip(*(columns[name] for name in names), strict=True)]  # type: ignore[misc]


def _counted(found: Mapping[str, _Columns], name: str, count: str) -> dict[str, dict[str, int]]:
    return {
        stream: {str(key): int(value) for key, value in zip(columns[name], columns[count], strict=True)}
        for stream, columns in found.items()
    }


def _models(columns: _Columns) -> tuple[Model, ...]:
    names = ("model_fingerprint", "first_us", "last_us", "batches")
    return tuple(Model(str(f), int(a), int(b), int(n)) for f, a, b, n in zip(*(columns[n] for n in names), strict=True))
