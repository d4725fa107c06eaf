"""The notes of a report: batches that were left out, messages without rows, how confidence was made.

The traces know nothing of an image that was never served, so that a report without the gaps in the footers of segments
and compacted files would call the rest complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from adawise.errors import ChainError
from adawise.output.read.rows import Rows, read_predictions
from adawise.output.read.several import shard_of
from adawise.output.verify.findings import joined
from adawise.records import Gap, TopicPartition, label_column, time_text
from adawise.sink.segment import FORMAT
from adawise.sink.served_by import ServedSettings
from adawise.store.documents import Count, Document, Text, read_document
from adawise.store.store import open_store
from adawise_drift.changes.find import ALPHA
from adawise_drift.changes.times import DAY_US, Clocks
from adawise_drift.collect import Collected, Tables
from adawise_drift.events.result import Camera

if TYPE_CHECKING:  # imports torch
    from adawise.card.card import Card

_LEVELS = 4  # that a camera must have had time for
_NAMED = 10  # cameras or gaps that are named one by one
_BESIDE = 10_000  # offsets around a gap in which rows are looked for that say when it was
_FETCHED = 1_000  # footers at once
# As bytes: DuckDB's error for text that is not UTF-8 would not name the file.
_FOOTERS = """
SELECT file_name, value FROM parquet_kv_metadata(?) WHERE key IN ('adawise.segment'::BLOB, 'adawise.compacted'::BLOB)
"""
_WHEN = """
SELECT epoch_us(max(kafka_timestamp) FILTER ("offset" < $first)),
    epoch_us(min(kafka_timestamp) FILTER ("offset" >= $until))
FROM served
WHERE topic = $topic AND partition = $partition
    AND ("offset" BETWEEN $first - $beside AND $first - 1 OR "offset" BETWEEN $until AND $until + $beside)
"""

_Neighbours = tuple[int | None, int | None]  # times of the rows beside a gap, microseconds; None where there are none


def calibration(served: Sequence[ServedSettings], card: Card | None) -> str:
    """Return at which temperature the confidence in the rows is, by the settings that the roots note.

    Args:
        served: settings of the models that served.
        card: the card that the report goes by.
    """
    cards = {str(each.settings.get("model.card", "")) for each in served}
    if not cards:
        return "whether confidence is at a card's temperature was not recorded"
    if cards == {""}:
        return "the workers had no card, so confidence is at temperature 1"
    if "" in cards:
        return "the workers had a card only for a part of the time, which alone may have moved confidence"
    other = "" if card is None or card.digest in cards else ", which is not the given card"
    return f"confidence is at the temperature of the workers' card{other}"


def left_out(tables: Tables, found: Collected, cameras: Sequence[Camera], clocks: Clocks) -> Iterator[str]:
    """Yield notes on what could not be analysed, and on what little is known of."""
    yield from tables.notes
    short = [camera.stream_id for camera in cameras if camera.batches < _LEVELS * ALPHA.settle]
    if short:
        yield (
            f"{len(short)} of {len(cameras)} cameras have fewer than {_LEVELS * ALPHA.settle} batches: their "
            f"changes are uncertain, since a level counts only after {ALPHA.settle} batches"
        )
    if untimed := tables.untimed():
        yield (
            f"{untimed} batches are left out: they have no time, neither captured-at nor a Kafka timestamp of 1970 "
            "to 2199"
        )
    if ahead := tables.ahead():
        yield (
            f"{sum(ahead.values())} batches are left out, because their time is in the future: the clocks of "
            f"{', '.join(list(ahead)[:_NAMED])}{' and others' if len(ahead) > _NAMED else ''} are ahead"
        )
    if found.wide_us > DAY_US:
        yield (
            f"events shorter than {found.wide_us // DAY_US} days are not found, since the data begin at "
            f"{time_text(found.since_us // 1000)}: give --since if a clock was wrong then"
        )
    if not found.rows:
        yield (
            "the root has no predictions of this time, and an earlier version wrote its traces: classes and "
            "agreement are not known"
        )
    for pattern in clocks.unused([camera.stream_id for camera in cameras]):
        yield f"--time-zone: no camera of this time is named {pattern}, so its zone is not used"


def fixed_alphas(served: Sequence[ServedSettings]) -> Iterator[str]:
    """Yield that alpha could not move, where the settings that served say so."""
    fixed = [each.settings.get("search.alpha") for each in served if each.settings.get("search.strategy") == "fixed"]
    if fixed:
        part = "" if len(fixed) == len(served) else " for a part of it"
        yield (
            f"a fixed alpha of {' or '.join(dict.fromkeys(map(str, fixed)))} served{part}: a constant alpha says "
            "nothing about the cameras; the other measures do"
        )


def labels_of_results(served: Sequence[ServedSettings]) -> Iterator[str]:
    """Yield that results had the scene's label, where the settings that served say so."""
    columns = {column for each in served if (column := label_column(each.settings)) is not None}
    if "scene_label" in columns:
        part = "" if len(columns) == 1 else " for a part of it"
        yield (
            f"results and alerts had scene_label as label{part} (scene.prior = served): what is said here of labels, "
            "confidence and `served` is of the column label, and scene_label is named as such"
        )


def never_served(tables: Tables, roots: Sequence[str], since: datetime | None, until: datetime | None) -> Iterator[str]:
    """Yield the messages between two times that have no rows on purpose, by partition.

    Every footer of the roots is read, and of the rows those beside a gap.
    """
    since_us, until_us = (None if at is None else round(at.timestamp() * 1e6) for at in (since, until))
    by_run: dict[tuple[str, TopicPartition, Gap], _Neighbours] = {}  # all shards that read a partition have its gaps
    for root in roots:
        shard = shard_of(open_store(root))
        for tp, gap, beside in _gaps(tables, read_predictions(root, columns=_WITH_OFFSETS)):
            by_run.setdefault((root if shard is None else shard.plan, tp, gap), beside)
    found = [(tp, gap, at) for (_, tp, gap), at in by_run.items() if not _is_outside(at, since_us, until_us)]
    for tp, gap, beside in found[:_NAMED]:
        when = " and ".join(time_text(-1 if at is None else at // 1000) for at in beside)
        yield (
            f"{gap.until - gap.first} messages of {tp} (offsets {gap.first} to {gap.until - 1}) were never "
            f"served, between {when}: {gap.reason}"
        )
    if len(found) > _NAMED:
        rest = sum(gap.until - gap.first for _, gap, _ in found[_NAMED:])
        yield f"{rest} more in {len(found) - _NAMED} other places: `adawise verify {' '.join(roots)}` lists them"


class _Version(Document):
    """The part of a footer that every version can read."""

    format: Count


class _Facts(Document):
    """The part of the footer of a segment or of a compacted file that is about messages without rows."""

    topic: Text
    partition: Count
    gaps: list[tuple[Count, Count] | tuple[Count, Count, Text]]
    states_of: Text | None = None


_WITH_OFFSETS = ("topic", "partition", "offset", "kafka_timestamp")


def _gaps(tables: Tables, rows: Rows) -> Iterator[tuple[TopicPartition, Gap, _Neighbours]]:
    """Yield the gaps of a root, by partition, with the times of the rows beside each."""
    connection = tables.connection
    rows.relation(connection).create_view("served")  # which also opens the connection to the store
    found: list[tuple[TopicPartition, Gap]] = []
    for file, data in _footers(tables, rows.files):
        facts = _read_facts(file, data)
        if facts.states_of is None:  # else they are what the other root has
            found += [(TopicPartition(facts.topic, facts.partition), gap) for gap in map(Gap.of, facts.gaps)]
    for tp, gaps in groupby(sorted(found), key=lambda each: each[0]):
        for gap in joined(gap for _, gap in gaps):
            place = {"topic": tp.topic, "partition": tp.partition, "first": gap.first, "until": gap.until}
            # All rows, since a connection with a result that is not read to its end opens no other root.
            (beside,) = connection.execute(_WHEN, place | {"beside": _BESIDE}).fetchall()
            yield tp, gap, beside


def _footers(tables: Tables, files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield each file whose footer has gaps, with the JSON of the footer."""
    if not files:
        return
    cursor = tables.connection.execute(_FOOTERS, [list(files)])
    while footers := cursor.fetchmany(_FETCHED):
        yield from ((file, data) for file, data in footers if b'"gaps": []' not in data)


def _read_facts(file: str, data: bytes) -> _Facts:
    """Parse the footer of a file. Raises ChainError if it is damaged, or of a newer format."""
    try:
        # The format first: a newer one may have other reasons, or gaps of another form.
        if (version := read_document(_Version, data).format) > FORMAT:
            raise ChainError(f"{file}: expected format {FORMAT} or older, but it is {version}; upgrade this program")
        facts = read_document(_Facts, data)
        for gap in map(Gap.of, facts.gaps):
            if gap.until < gap.first:
                raise ValueError(f"gaps: expected [first, until), but found {gap}")
    except ValueError as error:
        raise ChainError(f"{file}: its footer is damaged; `adawise verify` says what is lost") from error
    return facts


def _is_outside(beside: _Neighbours, since_us: int | None, until_us: int | None) -> bool:
    """Return whether a gap is before or after a time, as far as the rows beside it say."""
    after_us, before_us = beside
    is_before = since_us is not None and before_us is not None and before_us < since_us
    return is_before or (until_us is not None and after_us is not None and after_us >= until_us)
