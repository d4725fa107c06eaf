"""A root -> a database with its tables -> arrays by camera, so that what follows holds bins and not rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

import duckdb
import numpy as np
from duckdb import CaseExpression, ColumnExpression, ConstantExpression, DuckDBPyConnection, DuckDBPyRelation

from adawise.errors import SettingsError
from adawise.labels.arrays import Floats, Integers, empty, equal_runs, of_columns
from adawise.output.read.duckdb_rows import union
from adawise.output.read.rows import read_predictions, read_traces
from adawise.output.read.several import check_disjoint
from adawise.records import RowId
from adawise_drift import queries
from adawise_drift.changes.times import DAY_US, bin_width_us
from adawise_drift.events.measures import Binned, Mixed
from adawise_drift.events.result import PIXELS, Example, GalleryFrame, Model, Series, Stays

ALL = ""  # the name under which a query's rows of all cameras go; no camera is called so

_NAMED = 5  # cameras that are near one that is not known
_Columns = Mapping[str, Any]  # name -> array, of one query
_BINS = 720  # of a series: a month by the hour, and about as many points as a plot has pixels
_FEWEST = 60  # unless a camera has so few batches that most bins would be empty
_FINE = 20_000  # of a path
_WIDE = 3_000  # of what is watched: a month by the quarter of an hour
_OTHERS = "other classes"


class Tables:
    """The connection with `traces`, `predictions` and `levels`, and the questions about single changes.

    Args:
        roots: what `sink.root` named, of one or several, whose rows are taken together.
        streams, since, until: as of `read_traces`; without `until` up to now, for only clocks that are wrong are later.
        levels: the card's mean objective by alpha; empty without a card.

    `notes`: what the reader has to know of several roots.

    Raises SettingsError as `read_traces` does, and if two roots have the same rows.
    """

    def __init__(
        self,
        roots: Sequence[str],
        streams: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        levels: Mapping[float, float] = MappingProxyType({}),
    ) -> None:
        self._roots, self._streams = roots, streams
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        clashing = sorted(check_disjoint(roots))
        now = "true" if until is not None else f"time <= make_timestamptz({_now_us()})"
        self.notes = tuple(_clash(topic, roots) for topic in clashing)
        for name, read in (("traces", read_traces), ("predictions", read_predictions)):
            parts = [read(each, streams, since, until).relation(self.connection) for each in roots]
            numbered = [_numbered(part, number, clashing) for number, part in enumerate(parts, start=1)]
            rows = union(self.connection, name, numbered)
            rows.filter(f"time IS NOT NULL AND {now}").create_view(name)
            rows.filter("time IS NULL").create_view(f"untimed_{name}")
            rows.filter(f"NOT ({now})").create_view(f"ahead_{name}")
        self._others = [] if streams is None else [read_traces(each, None, since, until) for each in roots]
        self._now = now
        self.connection.execute("CREATE TABLE levels (alpha DOUBLE, reference DOUBLE)")
        if levels:
            self.connection.executemany("INSERT INTO levels VALUES (?, ?)", [list(item) for item in levels.items()])

    def expect_streams(self) -> None:
        """Raise SettingsError if a camera that is wanted has no batch at any time, with the nearest that have."""
        if self._streams is None:
            return
        known = _streams(self.connection)
        missing = [name for name in self._streams if name not in known]
        if not missing:
            return
        with closing(Tables(self._roots)) as whole:
            names = sorted(_streams(whole.connection))
        unknown = [name for name in missing if name not in names]
        if unknown:
            nearest = get_close_matches(unknown[0], names, _NAMED, 0.4) or names[:_NAMED]
            raise SettingsError(
                f"no camera {unknown[0]!r} under {' and '.join(self._roots)}; of {len(names)} cameras the nearest are "
                f"{', '.join(map(repr, nearest))}"
            )

    def untimed(self) -> int:
        """Count the batches that are left out because nothing says when they were."""
        ((count,),) = self.connection.execute("SELECT count(*) FROM untimed_traces").fetchall()
        return int(count)

    def ahead(self) -> dict[str, int]:
        """Count the batches that are left out because they are of a time to come, by camera."""
        sql = "SELECT stream_id, count(*) FROM ahead_traces GROUP BY stream_id ORDER BY stream_id"
        return {str(name): int(count) for name, count in self.connection.execute(sql).fetchall()}

    def end_us(self) -> int | None:
        """Return when the last batch of any camera was, also of those that are not looked at.

        None where all cameras are looked at, or there is no batch.
        """
        ends = [
            end
            for read in self._others
            for (end,) in read.relation(self.connection).filter(self._now).aggregate("epoch_us(max(time))").fetchall()
            if end is not None
        ]
        return max(map(int, ends), default=None)

    def nearest(
        self, stream_id: str, before_us: int, after_us: int, since_us: int, until_us: int, *, count: int
    ) -> list[tuple[RowId, Example]]:
        """Return the last `count` rows before a time and the first after another, within the last two.

        Their pictures are not there yet.
        """
        given = {"stream": stream_id, "from": before_us, "to": after_us, "since": since_us, "until": until_us}
        rows = self.connection.execute(queries.NEAREST, given | {"count": count}).fetchall()
        found = []
        for side, time_us, *place, label, confidence, alpha in sorted(rows, key=lambda row: row[1]):
            row = RowId(*place)
            found.append((row, Example(side, time_us, str(row), label, confidence, alpha, "")))
        return found

    def gallery(
        self, bounds: Callable[[str, int], tuple[int, int]], *, days: int, count: int
    ) -> tuple[str, list[tuple[RowId, GalleryFrame]]]:
        """Return rows of the last days of a recording, up to `count` of a kind, and the query that chose them.

        Of each camera the one that is least confident and that on which the endpoints disagree with most confidence, of
        each class the most confident. Their pictures are not there yet.

        Args:
            bounds: (topic, partition) -> [first, next) of the offsets that the recording has.
            days: how many days before the newest recorded batch rows are taken from.
            count: most rows of each kind.
        """
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE recorded (topic VARCHAR, partition INTEGER, first BIGINT, until BIGINT)"
        )
        for topic, partition in self.connection.execute("SELECT DISTINCT topic, partition FROM traces").fetchall():
            known = [topic, partition, *bounds(topic, partition)]
            self.connection.execute("INSERT INTO recorded VALUES (?, ?, ?, ?)", known)
        ((first_us, last_us),) = self.connection.execute(queries.RECORDED).fetchall()
        if first_us is None:
            return "", []
        sql = queries.gallery(max(first_us, last_us - days * DAY_US), last_us, count)
        found = []
        rows = self.connection.execute(sql).fetchall()
        for kind, stream_id, time_us, *place, label, zero_shot, fine_tuned, confidence in rows:
            row = RowId(*place)
            found.append(
                (row, GalleryFrame(kind, stream_id, time_us, str(row), label, zero_shot, fine_tuned, confidence, ""))
            )
        return sql, found

    def close(self) -> None:
        """Free the connection."""
        self.connection.close()


def _streams(connection: duckdb.DuckDBPyConnection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT DISTINCT stream_id FROM traces").fetchall()}


def _now_us() -> int:
    return round(datetime.now(UTC).timestamp() * 1e6)


def _numbered(rows: DuckDBPyRelation, root: int, clashing: Sequence[str]) -> DuckDBPyRelation:
    """Return these rows with the number of their root behind the name of a topic that another root has, too."""
    if not clashing:
        return rows
    topic = ColumnExpression("topic")
    for name in clashing:
        is_this = ColumnExpression("topic") == ConstantExpression(name)
        topic = CaseExpression(is_this, ConstantExpression(f"{name}.{root}")).otherwise(topic)
    return rows.select(*(topic.alias(name) if name == "topic" else ColumnExpression(name) for name in rows.columns))


def _clash(topic: str, roots: Sequence[str]) -> str:
    called = ", ".join(f"{topic}.{number} (of {root})" for number, root in enumerate(roots, start=1))
    return (
        f"topic {topic} of these outputs is several topics, so row ids are ambiguous: they are named {called} "
        "here. Labels by row_id, replays to compare with and recordings cannot be matched; labels by stream_id "
        "and captured_at can"
    )


# -- from the tables to arrays


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
    """All that is known from the tables. Mappings are by stream_id; `overall` is the series of all cameras together."""

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
    off_list: Mapping[str, tuple[int, Mapping[str, int]]]  # images under the newest shortlist, and what it lacks
    models: Mapping[str, tuple[Model, ...]]  # by camera, in the order in which they came; all cameras under ""
    rows: int  # images of these cameras of which the outcome is known, accepted or rejected
    starts: Mapping[str, Sequence[tuple[int, str]]]  # when a state was begun anew, and why (`queries.STARTS`)
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
    """Return the arrays of the tables `traces`, `predictions` and `levels` (alpha, reference).

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
    widths = {"bin": bin_us, "fine": fine_us, "wide": wide_us, "mix": mix_us, "judged": judged_us}
    prepare(connection, mix_us)
    connection.execute(queries.analysed_rows(is_labelled))
    connection.execute(queries.fine_bins(fine_us))

    def query(sql: str) -> dict[str, _Columns]:
        columns = _by_stream(connection, sql, widths)
        done()
        return columns

    facts = query(queries.CAMERAS)
    paths = {name: of_columns(DriftPath, columns) for name, columns in query(queries.PATHS).items()}
    binned = {name: of_columns(Binned, columns) for name, columns in query(queries.WIDE).items()}
    series = _series(query(queries.TRACES), binned, bin_us)
    overall = series.pop(ALL, None)
    return Collected(
        since_us=first_us,
        judged_us=max(first_us, judged_us),
        until_us=last_us,
        bin_us=bin_us,
        fine_us=fine_us,
        wide_us=wide_us,
        mix_us=mix_us,
        facts={name: _first(facts[name]) if name in facts else no_facts(path) for name, path in paths.items()},
        series=series,
        overall=empty(Series) if overall is None else overall,
        paths=paths,
        classes={
            name: _tuples(columns, "label", "rows", "early_rows", "late_rows")
            for name, columns in query(queries.CLASSES).items()
        },
        reasons={name: dict(_tuples(columns, "reason", "rows")) for name, columns in query(queries.REASONS).items()},
        all_rejected={name: int(columns["first_us"][0]) for name, columns in query(queries.ALL_REJECTED).items()},
        resets={name: dict(_tuples(columns, "reset", "batches")) for name, columns in query(queries.RESETS).items()},
        off_list={
            name: (int(columns["listed"][0]), dict(_tuples(columns, "label", "images")))
            for name, columns in query(queries.OFF_LIST).items()
        },
        models={
            name: tuple(Model(*row) for row in _tuples(columns, "model_fingerprint", "first_us", "last_us", "batches"))
            for name, columns in query(queries.MODELS).items()
        },
        rows=sum(int(columns["rows"][0]) for columns in facts.values()),
        starts={name: _tuples(columns, "time_us", "reset") for name, columns in query(queries.STARTS).items()},
        binned={name: binned[name] for name in paths},
        mixed={
            name: _mixed(columns, max(1.0, binned[name].images.sum() / binned[name].batches.sum()))
            for name, columns in query(queries.MIXES).items()
            if name in paths
        },
        stays={name: of_columns(Stays, columns) for name, columns in query(queries.STAYS).items()},
    )


def no_batch() -> SettingsError:
    """Return the error for a time in which nothing was served."""
    return SettingsError("there is no batch of these cameras in this time; name others, or leave the bounds out")


def no_facts(path: DriftPath) -> dict[str, Any]:
    """Return the facts of a camera that sent nothing in the time that is judged."""
    numbers = ("alpha", "alpha_low", "alpha_high", "forward_equivalents", "confidence", "endpoints_agree")
    times = {"first_us": int(path.first_us[0]), "last_us": int(path.last_us[-1])}
    counts = dict.fromkeys(("batches", "images", "rejected"), 0)
    return {**dict.fromkeys(numbers, float("nan")), **counts, **times, "alpha_last": float(path.alpha[-1])}


def prepare(connection: DuckDBPyConnection, mix_us: int) -> None:
    """Make the views and the table of `queries.measures`: of traces, and of rows where an earlier version wrote them.

    To be called after `queries.SPANS` was asked.
    """
    (last,) = connection.execute(queries.LAST_UNMEASURED).fetchone() or (None,)
    connection.execute(queries.measures(mix_us, last))


def _by_stream(connection: DuckDBPyConnection, sql: str, given: Mapping[str, int]) -> dict[str, _Columns]:
    """Return the answer to a query whose rows are ordered by `stream_id`, by camera and column."""
    parameters = {name: value for name, value in given.items() if f"${name}" in sql}
    found = connection.execute(sql, parameters).fetchnumpy()
    columns = {name: _plain(column) for name, column in found.items()}
    names = columns.pop("stream_id")  # NULLs of a masked array come first
    names = names.filled(ALL) if isinstance(names, np.ma.MaskedArray) else names
    return {
        str(names[start]): {name: column[start:end] for name, column in columns.items()}
        for start, end in equal_runs(names)
    }


def _plain(column: Any) -> Any:
    """Return a column without a mask: a NULL is nan among floats."""
    if not isinstance(column, np.ma.MaskedArray) or column.dtype.kind == "O":
        return column
    if column.dtype.kind in "biu" and not np.any(column.mask):
        return column.data
    return np.ma.filled(column.astype(np.float64), np.nan)


def _tuples(columns: _Columns, *names: str) -> list[tuple[Any, ...]]:
    return [*zip(*(columns[name].tolist() for name in names), strict=True)]


def _first(columns: _Columns) -> dict[str, Any]:
    return {name: column[0].item() for name, column in columns.items() if name != "rows"}


def _series(traces: Mapping[str, _Columns], binned: Mapping[str, Binned], bin_us: int) -> dict[str, Series]:
    """Return the series, with the pixel measures from narrower bins, as no query of these has them."""
    found = {}
    for name, columns in traces.items():
        at = columns["bin"]
        known = {column: values for column, values in columns.items() if column != "bin"}
        pixels = (
            _coarser(binned[name], at, bin_us) if name in binned else dict.fromkeys(PIXELS, np.full(len(at), np.nan))
        )
        found[name] = Series(time_us=at * bin_us, **known, **pixels)
    return found


def _coarser(of: Binned, at: Integers, bin_us: int) -> dict[str, Floats]:
    """Return the means of the pixel measures in the bins `at`."""
    bins = of.time_us // bin_us
    kept = np.isin(bins, at)
    place = np.searchsorted(at, bins[kept])

    def mean(values: Floats) -> Floats:
        known = np.isfinite(values[kept]) * of.batches[kept]
        total = np.bincount(place, np.nan_to_num(values[kept]) * known, len(at))
        count = np.bincount(place, known, len(at))
        found: Floats = np.divide(total, count, out=np.full(len(at), np.nan), where=count > 0)
        return found

    return {name: mean(getattr(of, name)) for name in PIXELS}


def _mixed(columns: _Columns, images_per_batch: float) -> Mixed:
    """Return the mixes of rows that are ordered by bin; the label None is for all other classes."""
    starts = np.flatnonzero(np.diff(columns["bin"], prepend=columns["bin"][0] - 1))
    place = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(columns["bin"]))))
    named = [_OTHERS if label is np.ma.masked or label is None else str(label) for label in columns["label"]]
    labels = sorted(set(named), key=lambda name: (name == _OTHERS, name))
    counts = np.zeros((len(starts), len(labels)), np.int64)
    counts[place, [labels.index(name) for name in named]] = columns["rows"]
    batches = np.maximum(1, np.rint(counts.sum(axis=1) / images_per_batch)).astype(np.int64)
    return Mixed(np.minimum.reduceat(columns["time_us"], starts), batches, tuple(labels), counts)
