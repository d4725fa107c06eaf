"""Comparison of two runs over the same messages: equal bit by bit, or where and by how much they differ.

Rows are matched by their identity, so the runs may have read different parts of a topic. Only what both have read is
compared; how much lies beyond it is reported. What a run has read is known exactly, from the heads of its chains. A row
that a run should have and lacks is a difference; a row that it never read is none. Durations, names of segments and
numbers of batches are not compared. Settings that differ are reported first, by name, if the roots recorded them.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from adawise.errors import SettingsError
from adawise.labels.arrays import concatenated
from adawise.labels.benefit import queries
from adawise.labels.benefit.bootstrap import Kinds, intervals
from adawise.labels.benefit.estimate import ENOUGH
from adawise.labels.benefit.helped import Interval
from adawise.labels.compare import query
from adawise.labels.compare.query import CoveredOffsets, Row
from adawise.labels.compare.result import (
    Accuracies,
    ByLabels,
    ClassAgreement,
    ComparedRun,
    FirstBatch,
    FirstRow,
    RunDifference,
    SettingDifference,
    StreamDifference,
    Totals,
)
from adawise.labels.join import label
from adawise.output.read.duckdb_rows import connect, translated
from adawise.output.read.several import check_complete, check_disjoint, replayed_parts, shard_of
from adawise.output.shards import expanded
from adawise.records import RowId, TopicPartition, label_column
from adawise.sink import claims
from adawise.sink.segment import SegmentFooter
from adawise.sink.served_by import ServedSettings, read_settings
from adawise.sink.walk import chains, footer_of
from adawise.store.store import Store, open_store

_MEMORY_BYTES = 2 << 30


def compare(
    root_a: str | Path | Sequence[str],
    root_b: str | Path | Sequence[str],
    streams: Sequence[str] | None = None,
    *,
    labels: str | None = None,
    label_within_us: int = 0,
    memory_bytes: int = _MEMORY_BYTES,
    spill: str | Path | None = None,
) -> RunDifference:
    """Compare the outputs of two runs.

    Args:
        root_a: the `sink.root` or `-o` of a run: a folder or a URL; or several that form one run, such as one that
            moved to another root on the way, or replays of some streams each.
        root_b: the other run.
        streams: the only streams to compare; None for all.
        labels: a file of labels; None: those under the two roots, and those that the producer sent.
        label_within_us: how far a label's time may be from its frame's, microseconds.
        memory_bytes: what the database may use; the rest is spilled.
        spill: folder to spill to; None: the system's for temporary files.

    Raises:
        SettingsError: no worker wrote at one of the roots, they have no image in common, roots of one run have the same
            rows or are of two topics of one name, the file of labels cannot be used, or DuckDB is not installed.
        ChainError: a segment is damaged.
        StoreUnavailable: a store does not answer.
    """
    sides = [[str(root)] if isinstance(root, (str, Path)) else list(root) for root in (root_a, root_b)]
    a, b = (" and ".join(roots) for roots in sides)
    every = [root for roots in sides for root in roots]
    with tempfile.TemporaryDirectory(prefix="adawise-diff-", dir=spill) as folder, translated(*every):
        connection = connect(folder, memory_bytes)
        try:
            runs, noted = [], []
            for name, roots in zip("ab", sides, strict=True):
                _check_one_topic(roots)
                known = [read_settings(open_store(root)) for root in roots]
                parts = [_run(root, of_root) for root, of_root in zip(roots, known, strict=True)]
                covered = _joined([each for _, those in parts for each in those])
                query.load(connection, name, roots, streams, covered)
                runs.append(_together([run for run, _ in parts], query.models(connection, name), len(covered)))
                noted.append([each for of_root in known for each in of_root])
            by_stream, by_label = query.rows(connection)
            by_batch = query.batches(connection)
            by_truth = by_labels(connection, every, file=labels, within_us=label_within_us)
        finally:
            connection.close()
    if not any(row["images"] for row in by_stream):
        raise SettingsError(
            f"{a} and {b} have no image in common: expected two runs over the same messages of one topic; "
            "compare a run with a replay of it"
        )
    return _difference(runs[0], runs[1], tuple(_differing(*noted)), by_stream, by_label, by_batch, by_truth)


def split_roots(given: str) -> list[str]:
    """Return the roots that commas separate. A path that exists is one root, as its name may have a comma.

    The folder of a plan is all of its shards.

    Raises:
        SettingsError: a name is empty, or a shard has not begun.
        ChainError: a plan is damaged.
        StoreUnavailable: a store does not answer.
    """
    roots = [given] if "://" not in given and Path(given).exists() else [each.strip() for each in given.split(",")]
    if not all(roots):
        raise SettingsError(f"expected folders or URLs separated by commas, got {given!r}: remove the empty one")
    return expanded(roots)


def _check_one_topic(roots: Sequence[str]) -> None:
    """Raise SettingsError if these roots are of different topics of one name, or lack a shard of their plan."""
    check_complete(roots)
    clashing = sorted(check_disjoint(roots))
    if clashing:
        raise SettingsError(
            f"topic {clashing[0]} of {' and '.join(roots)} is not the same topic: expected outputs of one topic, "
            "since rows are compared by offset; compare the outputs of each topic separately"
        )


def _together(runs: Sequence[ComparedRun], served: set[str], partitions: int) -> ComparedRun:
    """Merge the parts of a run into one."""
    return ComparedRun(
        root=" and ".join(run.root for run in runs),
        models=tuple(sorted({*served, *(name for run in runs for name in run.models)})),
        settings=tuple(sorted({name for run in runs for name in run.settings})),
        partitions=partitions,
        states_of=tuple(sorted({name for run in runs for name in run.states_of})),
        unnoted=tuple(sorted({name for run in runs for name in run.unnoted})),
        label_columns=tuple(sorted({name for run in runs for name in run.label_columns})),
    )


def _joined(parts: Sequence[CoveredOffsets]) -> list[CoveredOffsets]:
    """Merge the parts of each partition into one, from the first to the last offset, with what lies between as gaps."""
    found: dict[tuple[str, int], CoveredOffsets] = {}
    begun = {(part.topic, part.partition) for part in parts if not part.plan or part.first < part.until}
    for part in sorted(parts, key=lambda part: part.first):
        if (part.topic, part.partition) not in begun:
            continue
        one = found.get((part.topic, part.partition))
        if one is not None:
            between = (range(one.until, part.first),) if part.first > one.until else ()
            # Shards of a plan divide the cameras: what all of them have read is done.
            is_shard = part.plan and part.plan == one.plan
            until = min(one.until, part.until) if is_shard else max(one.until, part.until)
            part = replace(part, first=one.first, until=until, open=one.open | part.open, gaps=(*one.gaps, *between))
        found[part.topic, part.partition] = part
    return list(found.values())


def _run(root: str, noted: Sequence[ServedSettings]) -> tuple[ComparedRun, list[CoveredOffsets]]:
    """Return what the chains of a root say: the run, and the offsets that it covers."""
    store = open_store(root)
    shard, covered, footers, begun = shard_of(store), list[CoveredOffsets](), [], []
    of_chains = chains(store)
    for tp, keys in of_chains.items():
        footer = footer_of(store, keys[-1])
        head = footer if len(keys) == 1 else footer_of(store, keys[0])
        footers.append(footer)
        begun += [head.states_of] if head.states_of else []
        part = _covered(store, tp, head, footer)
        covered.append(part if shard is None else replace(part, plan=shard.plan))
    if shard is not None:  # where it has no chain yet, it has read nothing
        covered += [
            CoveredOffsets(tp.topic, tp.partition, part.start, part.start, frozenset(), plan=shard.plan)
            for tp, part in replayed_parts(store).items()
            if part and tp not in of_chains
        ]
    of_heads = {footer.config_fingerprint for footer in footers}
    known = {each.config_fingerprint for each in noted}
    run = ComparedRun(
        root,
        tuple(sorted({footer.model_fingerprint for footer in footers})),
        tuple(sorted(of_heads | known)),
        len(footers),
        tuple(sorted(begun)),
        tuple(sorted(of_heads - known)),
        tuple(sorted({column for each in noted if (column := label_column(each.settings)) is not None})),
    )
    return run, covered


def _covered(store: Store, tp: TopicPartition, first: SegmentFooter, newest: SegmentFooter) -> CoveredOffsets:
    origin = claims.read_origin(store, tp)
    begin = first.first if origin is None else origin.offset
    if (cut := claims.read_beginning(store, tp)) is not None:
        begin = cut[0].first
    # Messages whose batch was not complete at the newest segment have no rows yet.
    open_ = set(newest.pending)
    # A run that continued from another root does not read again what that root had done.
    if first.states_of is not None:
        open_ |= {offset for gap in first.gaps for offset in range(gap.first, gap.until)}
    return CoveredOffsets(tp.topic, tp.partition, begin, newest.next, frozenset(open_))


def _differing(a: Sequence[ServedSettings], b: Sequence[ServedSettings]) -> Iterator[SettingDifference]:
    """Yield the settings whose values differ between the runs; none if nothing is known of one run.

    The values of each run are in the order in which they came. A setting that is a hash differs if the hash does,
    wherever its file lies.
    """
    if not a or not b:
        return
    for name in dict.fromkeys(name for each in (*a, *b) for name in each.settings):
        of_a, of_b = ({_setting_key(each, name): _setting_value(each, name) for each in run} for run in (a, b))
        if of_a.keys() != of_b.keys():
            yield SettingDifference(name, tuple(of_a.values()), tuple(of_b.values()))


def _setting_key(each: ServedSettings, name: str) -> str:
    return repr(each.settings.get(name))


def _setting_value(each: ServedSettings, name: str) -> Any:
    value = each.settings.get(name)
    return f"{value} ({each.places[name]})" if value and name in each.places else value


def _difference(
    a: ComparedRun,
    b: ComparedRun,
    settings: Sequence[SettingDifference],
    by_stream: Sequence[Row],
    by_label: Sequence[Row],
    by_batch: Sequence[Row],
    by_truth: tuple[ByLabels, Mapping[Place, Accuracies]],
) -> RunDifference:
    batches, (truth, by_place) = {_key(row): row for row in by_batch}, by_truth
    streams = [_stream(row, batches.get(_key(row), {}), by_place.get(_key(row))) for row in by_stream]
    # As text, because each may be null in a damaged file.
    streams.sort(key=lambda s: (not s.differs, str(s.topic), s.stream_id or "", str(s.partition).rjust(9)))
    totals, classes = _totals(by_stream, by_label, by_batch, truth.whole), tuple(_classes(by_label))
    return RunDifference(settings, a, b, totals, truth, tuple(streams), classes)


def _key(row: Row) -> tuple[str, int, str | None]:
    return row["topic"], row["partition"], row["stream_id"]


def _stream(row: Row, batch: Row, truth: Accuracies | None) -> StreamDifference:
    return StreamDifference(
        *_key(row),
        images=row["images"],
        differing=row["differing"],
        relabelled=row["relabelled"],
        alone=(row["a_alone"], row["b_alone"]),
        beyond=(row["a_beyond"], row["b_beyond"]),
        batches=batch.get("batches", 0),
        batches_differing=batch.get("differing", 0),
        batches_apart=batch.get("gap", 0),
        alpha_mean=_ratio(row["gap_sum"], row["adapted"]),
        alpha_max=row["gap_max"],
        labelled=truth.images if truth else 0,
        right=truth.right if truth else (0, 0),
        forward_equivalents=(
            _ratio(batch.get("a_passed"), batch.get("a_images")),
            _ratio(batch.get("b_passed"), batch.get("b_images")),
        ),
        first_batch=_first_batch(batch),
        first_row=_first_row(row),
    )


def _first_batch(batch: Row) -> FirstBatch | None:
    first = batch.get("first_batch")
    if first is None:
        return None
    a, b = (first[side] if first[f"{side}_there"] else None for side in "ab")
    at: int = batch["first_offset"]
    if a is None or b is None:
        return FirstBatch(at, (), a, b, last_of_its_run=False)
    smaller = "b" if b["images"] < a["images"] else "a"
    cut_short = a["images"] != b["images"] and batch[f"{smaller}_last"] == at
    return FirstBatch(at, tuple(first["what"]), a, b, last_of_its_run=cut_short)


def _first_row(row: Row) -> FirstRow | None:
    first = row["first_row"]
    if first is None:
        return None
    both = first["a_there"] and first["b_there"]
    pairs: dict[str, Any] = {
        name: (first[f"a_{name}"], first[f"b_{name}"]) for name in ("label", "confidence", "alpha")
    }
    return FirstRow(
        row_id=str(RowId(row["topic"], row["partition"], first["offset"], first["index"])),
        what=tuple(first["differs"]) if both else (),
        only_in=None if both else "a" if first["a_there"] else "b",
        **pairs,
    )


def _totals(
    by_stream: Sequence[Row], by_label: Sequence[Row], by_batch: Sequence[Row], truth: Accuracies | None
) -> Totals:
    return Totals(
        images=_sum(by_stream, "images"),
        differing=_sum(by_stream, "differing"),
        relabelled=_sum(by_stream, "relabelled"),
        given_differing=_sum(by_stream, "given_differing"),
        renumbered=_sum(by_stream, "renumbered"),
        alone=(_sum(by_stream, "a_alone"), _sum(by_stream, "b_alone")),
        beyond=(_sum(by_stream, "a_beyond"), _sum(by_stream, "b_beyond")),
        batches=_sum(by_batch, "batches"),
        batches_differing=_sum(by_batch, "differing"),
        batches_apart=_sum(by_batch, "gap"),
        alpha_mean=_ratio(_sum(by_stream, "gap_sum"), _sum(by_stream, "adapted")),
        alpha_max=max((row["gap_max"] for row in by_stream if row["gap_max"] is not None), default=None),
        images_apart=_sum(by_stream, "gap_images"),
        kappa=_kappa(by_label),
        labelled=truth.images if truth else 0,
        accuracy=(truth.accuracy[0].value, truth.accuracy[1].value) if truth else (None, None),
        forward_equivalents=(
            _ratio(_sum(by_batch, "a_passed"), _sum(by_batch, "a_images")),
            _ratio(_sum(by_batch, "b_passed"), _sum(by_batch, "b_images")),
        ),
    )


def _sum(rows: Iterable[Row], name: str) -> Any:
    return sum(row[name] or 0 for row in rows)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return float(part) / float(whole) if part is not None and whole else None


def _margins(by_label: Sequence[Row]) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Return the number of images by class, of those that both runs served: labelled so by A, by B, and by both."""
    a, b, both = Counter[str](), Counter[str](), Counter[str]()
    for row in by_label:
        one, other, images = row["a_label"], row["b_label"], row["images"]
        if one is not None and other is not None:
            a[one] += images
            b[other] += images
            both[one] += images * (one == other)
    return a, b, both


def _classes(by_label: Sequence[Row]) -> list[ClassAgreement]:
    a, b, both = _margins(by_label)
    return [ClassAgreement(name, a[name], b[name], both[name]) for name in sorted(a.keys() | b, key=str)]


def _kappa(by_label: Sequence[Row]) -> float | None:
    """Return Cohen's kappa: the agreement beyond that of chance with the same shares of classes (Cohen, 1960)."""
    a, b, both = _margins(by_label)
    images = sum(a.values())
    by_chance = sum(count * b[name] for name, count in a.items()) / max(images, 1) ** 2
    return (sum(both.values()) / images - by_chance) / (1 - by_chance) if images and by_chance < 1 else None


Place = tuple[str, int, str | None]


def by_labels(
    connection: duckdb.DuckDBPyConnection, roots: Sequence[str], *, file: str | None, within_us: int
) -> tuple[ByLabels, dict[Place, Accuracies]]:
    """Compare the accuracies on images that have a label and that both runs served, and those of each stream alone.

    Args:
        connection: with `a_rows` and `b_rows`; it gets the views of `label` and `answers`.
        roots: the two outputs, which may contain labels.
        file: a file of labels; if given, the only source of labels.
        within_us: as in `label`.

    Raises:
        SettingsError, ChainError, StoreUnavailable: as `label`.
    """
    connection.execute("CREATE VIEW predictions AS SELECT * FROM a_rows")
    connection.execute("CREATE VIEW run_0 AS SELECT * FROM b_rows WHERE label IS NOT NULL")
    found = connection.execute("SELECT DISTINCT label FROM run_0").fetchall()
    labels = label(connection, roots, file=file, within_us=within_us, classes=[name for (name,) in found])
    kinds: dict[Place, Kinds] = {}
    if labels.labelled:
        connection.execute(queries.create_answers([queries.of_run(0)], 1))
        kinds = _by_place(connection.execute(queries.KINDS).fetchall())
    whole = _accuracies(concatenated(list(kinds.values()))) if kinds else None
    by_stream: dict[str, list[Kinds]] = {}
    for (_, _, stream_id), each in kinds.items():
        by_stream.setdefault(stream_id or "", []).append(each)
    streams = {name: concatenated(parts) for name, parts in sorted(by_stream.items())}
    return ByLabels(
        source=labels.source,
        whole=whole,
        streams={name: _accuracies(each) for name, each in streams.items() if each.total >= ENOUGH},
        notes=labels.notes,
    ), {place: _accuracies(each) for place, each in kinds.items()}


def _by_place(rows: Sequence[tuple[int, str | None, str, int, int, int, int, int]]) -> dict[Place, Kinds]:
    counts: dict[Place, list[tuple[int, int, int, int]]] = {}
    for _, stream_id, topic, partition, *kind in rows:
        images, a, b, times = kind
        counts.setdefault((topic, partition, stream_id), []).append((images, a, b, times))
    return {place: Kinds(*np.array(each, np.int64).T) for place, each in counts.items()}


def _accuracies(kinds: Kinds) -> Accuracies:
    b, less = intervals(kinds, seed=0)
    a, _ = intervals(Kinds(kinds.images, kinds.served, kinds.served, kinds.times), seed=0)
    return Accuracies(
        images=kinds.total,
        batches=kinds.batches,
        right=(int(kinds.times @ kinds.served), int(kinds.times @ kinds.own)),
        accuracy=(a, b),
        difference=Interval(0.0 - less.value, 0.0 - less.high, 0.0 - less.low),  # avoids -0.0
    )
