"""Baselines: a file of hours, learned once, by which a nightly report knows cameras without weeks of traces.

A row a camera and hour, with what `Binned` and `Mixed` have of it. It is brought up to date by each report that reads
it, keeps so many days, and two of them can be put together: the same hour is the same row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from adawise.errors import SettingsError
from adawise.labels.arrays import concatenated, empty, equal_runs
from adawise.output.read.several import ids_of
from adawise.store.files import open_regular
from adawise.store.parquet import open_parquet
from adawise.store.store import replace_file
from adawise_drift.changes.times import HOUR_US, utc
from adawise_drift.collect import Collected, DriftPath, Tables, collect, no_batch, no_facts
from adawise_drift.events.measures import NO_MIX, Binned, Mixed, joined
from adawise_drift.events.result import Model, Series
from adawise_drift.request import DriftRequest

DAYS = 28
_FORMAT = 1
_KEY = b"adawise_baseline"
_COUNTS = {"time_us", "last_us", "batches", "images", "compared", "agreed", "rejected", "labelled", "correct"}
_SCHEMA = pa.schema(
    [
        pa.field("stream_id", pa.string(), nullable=False),
        *(pa.field(f.name, pa.int64() if f.name in _COUNTS else pa.float32()) for f in fields(Binned)),
        pa.field("class_counts", pa.map_(pa.string(), pa.int64())),
        pa.field("model_fingerprint", pa.string()),  # of the hour's last batch
    ],
    metadata={_KEY: json.dumps({"format": _FORMAT}).encode()},
)


@dataclass(frozen=True, slots=True)
class Baseline:
    """Hours of cameras, by `stream_id` and time. `until_us`: the end of its last hour; nothing is known from it on.

    `roots`: ids of the outputs that it was learned from; those of an earlier version did not say. `streams`: the
    cameras of which it has all hours until then; None: every one.
    """

    hours: pa.Table
    roots: frozenset[str] = frozenset()
    streams: frozenset[str] | None = None

    @property
    def until_us(self) -> int:
        """The end of the last hour; 0 if there is none."""
        newest = pa.compute.max(self.hours["time_us"]).as_py()
        return 0 if newest is None else (newest // HOUR_US + 1) * HOUR_US

    def cameras(self, before_us: int) -> Iterator[tuple[str, Binned, Mixed, tuple[Model, ...]]]:
        """Yield what is known of each camera before an hour begins."""
        table = self.hours.filter(pa.compute.less(self.hours["time_us"], before_us))
        names = table["stream_id"].to_numpy(zero_copy_only=False)
        for start, end in equal_runs(names):
            rows = table.slice(start, end - start)
            columns = {f.name: rows[f.name].to_numpy() for f in fields(Binned)}
            binned = Binned(**{n: c if n in _COUNTS else c.astype(np.float64) for n, c in columns.items()})
            yield str(names[start]), binned, _mixed(rows, binned), tuple(_models(rows))


def read_baseline(path: Path) -> Baseline:
    """Return the baseline of a file. Raises SettingsError if it holds none, or one of a later version."""
    try:
        with open_regular(path) as file:
            hours = open_parquet(file).read()
        metadata = json.loads((hours.schema.metadata or {}).get(_KEY, b"{}"))
        format_, roots = metadata.get("format"), frozenset(map(str, metadata.get("roots", ())))
        streams = None if metadata.get("streams") is None else frozenset(map(str, metadata["streams"]))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise SettingsError(f"--baseline {path}: cannot be read ({error}). {_REMEDY}") from error
    if format_ != _FORMAT or not hours.schema.equals(_SCHEMA):
        raise SettingsError(f"--baseline {path}: expected a baseline of format {_FORMAT}, got {format_}. {_REMEDY}")
    return Baseline(hours, roots, streams)


_REMEDY = "Name another file, or remove it: it is made anew from what lies under the root."


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Replace the file at once; raises SettingsError if it cannot be written."""
    streams = None if baseline.streams is None else sorted(baseline.streams)
    metadata = json.dumps({"format": _FORMAT, "roots": sorted(baseline.roots), "streams": streams})
    content = pa.BufferOutputStream()
    try:
        pq.write_table(baseline.hours.replace_schema_metadata({_KEY: metadata}), content, compression="zstd")
        path.parent.stat()  # a folder that is absent is a mistake in the name: it would be created
        replace_file(path, content.getvalue())
    except OSError as error:
        raise SettingsError(
            f"--baseline {path}: cannot be written ({error.strerror or error}). Name a file in a folder that exists."
        ) from error


def merged(one: Baseline, other: Baseline, *, since_us: int = 0) -> Baseline:
    """Return both, from a time on; of an hour that both know, what the other says."""
    tables = [each.hours.filter(pa.compute.greater_equal(each.hours["time_us"], since_us)) for each in (one, other)]
    both = pa.concat_tables(tables)
    hour = pa.compute.divide(both["time_us"], HOUR_US)
    both = both.append_column("hour", hour).append_column("place", pa.array(np.arange(len(both))))
    last = both.group_by(["stream_id", "hour"]).aggregate([("place", "max")])["place_max"]
    kept = both.take(last).drop_columns(["hour", "place"])
    hours = kept.sort_by([("stream_id", "ascending"), ("time_us", "ascending")])
    streams = None if one.streams is None or other.streams is None else one.streams | other.streams
    return Baseline(hours, one.roots | other.roots, streams)


def learned(found: Collected, until_us: int) -> Baseline:
    """Return the whole hours of what was collected by the hour, up to a time."""
    end = until_us // HOUR_US * HOUR_US
    parts = [_rows(name, found, end) for name in found.binned]
    return Baseline(pa.concat_tables(parts) if parts else _SCHEMA.empty_table())


def _rows(stream_id: str, found: Collected, end_us: int) -> pa.Table:
    binned, mixed = found.binned[stream_id], found.mixed.get(stream_id, NO_MIX)
    kept = np.flatnonzero(binned.time_us < end_us)
    place = {int(at // HOUR_US): row for row, at in enumerate(mixed.time_us)}
    counts = [_counts(mixed, place.get(int(at // HOUR_US))) for at in binned.time_us[kept]]
    models = found.models.get(stream_id, ())
    served = [_served(models, int(at)) for at in binned.last_us[kept]]
    columns = {f.name: getattr(binned, f.name)[kept] for f in fields(Binned)}
    arrays = [pa.array([stream_id] * len(kept), pa.string())]
    arrays += [pa.array(columns[name], _SCHEMA.field(name).type) for name in columns]
    arrays += [pa.array(counts, _SCHEMA.field("class_counts").type), pa.array(served, pa.string())]
    return pa.table(arrays, schema=_SCHEMA)


def _counts(mixed: Mixed, row: int | None) -> list[tuple[str, int]]:
    if row is None:
        return []
    return [(name, int(n)) for name, n in zip(mixed.labels, mixed.counts[row], strict=True) if n]


def _served(models: Sequence[Model], at_us: int) -> str | None:
    return next((model.fingerprint for model in reversed(models) if model.first_us <= at_us), None)


def _mixed(rows: pa.Table, binned: Binned) -> Mixed:
    maps = rows["class_counts"].combine_chunks()
    offsets = maps.offsets.to_numpy()
    names = maps.keys.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    labels, column = np.unique(names.astype(str), return_inverse=True)
    counts = np.zeros((len(rows), len(labels)), np.int64)
    row = np.repeat(np.arange(len(rows)), np.diff(offsets))
    counts[row, column] = maps.items.to_numpy()[offsets[0] : offsets[-1]]
    return Mixed(binned.time_us, binned.batches, tuple(labels.tolist()), counts)


def _models(rows: pa.Table) -> Iterator[Model]:
    names = rows["model_fingerprint"].to_pylist()
    first, last, batches = (rows[name].to_numpy() for name in ("time_us", "last_us", "batches"))
    for start, end in equal_runs(names):
        if names[start] is not None:
            yield Model(names[start], int(first[start]), int(last[end - 1]), int(batches[start:end].sum()))


def after(baseline: Baseline, found: Collected, since_us: int) -> Collected:
    """Return what was collected by the hour from `since_us` on, with the hours of the baseline before it."""
    binned, mixed, models = dict(found.binned), dict(found.mixed), dict(found.models)
    first_us = found.since_us
    for name, old, old_mix, old_models in baseline.cameras(since_us):
        binned[name] = concatenated([old, binned[name]]) if name in binned else old
        mixed[name] = joined(old_mix, mixed[name]) if name in mixed else old_mix
        models[name] = _succession(old_models, models.get(name, ()))
        first_us = min(first_us, int(old.time_us[0]))
    paths = {n: DriftPath(of.time_us, of.last_us, of.batches, of.alpha, of.objective) for n, of in binned.items()}
    facts = {name: found.facts[name] if name in found.facts else no_facts(path) for name, path in paths.items()}
    series = {name: found.series.get(name, empty(Series)) for name in paths}
    return replace(
        found, since_us=first_us, judged_us=since_us, facts=facts, series=series, paths=paths, binned=binned,
        mixed=mixed, models=models,
    )  # fmt: skip


def _succession(old: Sequence[Model], new: Sequence[Model]) -> tuple[Model, ...]:
    if not old or not new or old[-1].fingerprint != new[0].fingerprint:
        return (*old, *new)
    both = replace(new[0], first_us=old[-1].first_us, batches=old[-1].batches + new[0].batches)
    return (*old[:-1], both, *new[1:])


class History:
    """The past that a request learns from, before the time that is judged: none, the root's own, or a baseline.

    `read_from`: begin of what is read; None for all there is. `judged_us`: begin of what is judged; 0 for all there is.
    `notes`: that a baseline of other cameras is not brought up to date.

    Raises SettingsError for a file that is none, or of other roots; StoreUnavailable by the roots.
    """

    def __init__(self, request: DriftRequest) -> None:
        since, until, file = request.since, request.until, request.baseline
        self._file, self._streams = file, None if request.streams is None else frozenset(request.streams)
        self._file_is_kept = False
        self._raw: Collected | None = None
        self._known = Baseline(_SCHEMA.empty_table())
        self.read_from = since
        self.judged_us = self._from_us = self._oldest_us = 0
        self._width_us: int | None = None
        self._silent_us: int | None = None  # the end of what is judged: who sent nothing in it is silent
        self.notes: tuple[str, ...] = ()
        if since is None or (request.reference is None and file is None):
            return
        self.judged_us = round(since.timestamp() * 1e6)
        span_us = (request.reference or timedelta(days=DAYS)) // timedelta(microseconds=1)
        now = datetime.now(UTC)
        self._silent_us = round(min(until or now, now).timestamp() * 1e6)
        self._from_us = self.judged_us - span_us
        if file is not None:
            self._width_us = HOUR_US
            self.judged_us = self.judged_us // HOUR_US * HOUR_US
            self._from_us = self.judged_us - span_us
            self._known = replace(self._known, streams=self._streams)
            if file.exists():
                self._read(file, request.roots)
            self._known = replace(self._known, roots=self._known.roots | ids_of(request.roots))
        self._oldest_us = self.judged_us - span_us
        self.read_from = utc(self._from_us)

    def _read(self, file: Path, roots: Sequence[str]) -> None:
        """Take what a baseline knows, so that only what came since is read from the roots."""
        kept = _of_these(read_baseline(file), file, roots)
        self._known = replace(merged(self._known, kept, since_us=self._from_us), streams=self._streams)
        if _has(kept.streams, self._streams):
            self._from_us = min(self.judged_us, max(self._known.until_us, self._from_us))
        if not _has(self._streams, kept.streams):
            # with the hours of some, those of the others would be taken for read until then
            self._file_is_kept = True
            of = "all cameras" if kept.streams is None else f"{len(kept.streams)} cameras"
            self.notes = (
                f"--baseline {file} is of {of}, not of those alone that are looked at: it is read, and not brought up "
                "to date",
            )

    def collect(self, tables: Tables, done: Callable[[], object], *, is_labelled: bool) -> Collected:
        """Return what the tables hold, with what is known from before; see `adawise_drift.collect`.

        Raises SettingsError if that is nothing at all.
        """
        found = collect(
            tables.connection,
            done,
            is_labelled=is_labelled,
            judged_us=self.judged_us,
            width_us=self._width_us,
            silent_us=self._silent_us,
            end_us=tables.end_us(),
        )
        self._raw = found
        if self._file is not None:
            known = self._known.hours
            if self._streams is not None:
                known = known.filter(pa.compute.is_in(known["stream_id"], pa.array(list(self._streams))))
            found = replace(after(Baseline(known), found, self._from_us), judged_us=self.judged_us)
        if not found.paths:
            raise no_batch()
        return found

    def updated(self) -> Baseline | None:
        """Return the baseline brought up to date by what was collected; None where no file is to be written."""
        if self._file is None or self._raw is None or self._file_is_kept:
            return None
        both = merged(self._known, learned(self._raw, self._raw.until_us), since_us=self._oldest_us)
        return replace(both, streams=self._known.streams)


def _of_these(baseline: Baseline, file: Path, roots: Sequence[str]) -> Baseline:
    """Return the baseline if one of the roots is one that it was learned from. Raises SettingsError otherwise."""
    ids = ids_of(roots)
    if not baseline.roots or not ids or baseline.roots & ids:
        return baseline
    raise SettingsError(
        f"--baseline {file}: expected one that was learned from {' or '.join(roots)} (id {' or '.join(sorted(ids))}), "
        f"but this one was from another output (id {' and '.join(sorted(baseline.roots))}). Name another file, which "
        "is made if it is not there; or, if the cameras moved from that output to this one, name both outputs once"
    )


def _has(streams: frozenset[str] | None, others: frozenset[str] | None) -> bool:
    """Return whether the first cameras have all of the others among them; None is every camera."""
    return streams is None or (others is not None and others <= streams)
