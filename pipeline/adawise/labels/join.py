"""The join of true labels and rows: the view `labelled`, on which the queries of `judge` run.

Labels come from a file. Without one, they come from what `adawise labels` stored under the root, and from the producer
(`true_label`) where that has none. If a row has several labels, the latest counts.

A label names its row, or its stream and the time of the image. A label with a time belongs to the nearest frame within
a tolerance; of two equally near frames, to the earlier one. If several frames share that time, it belongs to none,
since the right one is unknown. The tables `found` and `truths` hold the matches, at most one label per row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import duckdb

from adawise.labels.given import read_chain, read_labels

NO_LABELS = (
    "there are no labels of these images: give --labels FILE, collect them with `adawise labels`, or have the producer "
    "send them"
)
"""The note where neither root nor producer has labels."""

_NAMED = 5  # unknown classes that a note names

_FROM_FILE = "truths.truth"
_FROM_ALL = "CASE WHEN truths.truth IS NULL THEN true_label ELSE truths.truth END"

_VIEW = """
CREATE OR REPLACE TEMP VIEW truthful AS
SELECT predictions.*, nullif({truth}, '') AS truth, truths.truth IS NOT NULL AS collected
FROM predictions LEFT JOIN truths USING (topic, partition, "offset", "index")
WHERE {truth} IS NOT NULL
"""

_KNOWN = """
CREATE OR REPLACE TEMP TABLE known AS
SELECT DISTINCT label AS class FROM predictions WHERE label IS NOT NULL
UNION SELECT DISTINCT unnest(list_concat(coalesce(top_labels, []), [zero_shot_label, fine_tuned_label])) FROM truthful
"""

_LABELLED = """
CREATE OR REPLACE TEMP VIEW labelled AS
SELECT * FROM truthful WHERE status = 'accepted' AND truth IN (SELECT class FROM known WHERE class IS NOT NULL)
"""

_COUNTS = """
SELECT status = 'accepted' AS accepted, truth, truth IN (SELECT class FROM known WHERE class IS NOT NULL) AS known,
       collected, count(*) AS images
FROM truthful WHERE truth IS NOT NULL GROUP BY ALL ORDER BY images DESC, truth
"""

_NO_TRUTHS = """
CREATE OR REPLACE TEMP TABLE truths
(topic VARCHAR, partition INTEGER, "offset" BIGINT, "index" INTEGER, truth VARCHAR)
"""

_BY_ROW = """
CREATE OR REPLACE TEMP TABLE found AS
SELECT parts[1] AS topic, parts[2]::INTEGER AS partition, parts[3]::BIGINT AS "offset", parts[4]::INTEGER AS "index",
       label, labelled_at, number
FROM (SELECT *, string_split(row_id, '/') AS parts FROM given WHERE row_id IS NOT NULL)
"""


_NEAREST = """
CREATE OR REPLACE TEMP TABLE nearest AS
WITH wanted AS (
    SELECT number, stream_id, label, labelled_at, epoch_us(captured_at) AS us,
           unnest(CASE WHEN $within = 0 THEN [epoch_us(captured_at)]
                       ELSE [epoch_us(captured_at) // $width + step FOR step IN [-1, 0, 1]] END) AS bucket
    FROM given WHERE row_id IS NULL
), frames AS (
    SELECT stream_id, epoch_us(captured_at) AS frame_us, {t: topic, p: partition, o: "offset", i: "index"} AS row
    FROM predictions WHERE captured_at IS NOT NULL
), at_times AS (
    SELECT number, any_value(label) AS label, any_value(labelled_at) AS labelled_at, us, frame_us,
           min(row) AS row, count(*) AS frames
    FROM wanted JOIN frames ON wanted.stream_id = frames.stream_id AND bucket = frame_us // $width
    WHERE abs(frame_us - us) <= $within
    GROUP BY number, us, frame_us
)
SELECT number, any_value(label) AS label, any_value(labelled_at) AS labelled_at,
       arg_min({row: row, frames: frames}, 2 * abs(frame_us - us) + (frame_us > us)::INTEGER) AS best
FROM at_times GROUP BY number
"""


_BY_TIME = """
INSERT INTO found
SELECT best.row.t, best.row.p, best.row.o, best.row.i, label, labelled_at, number FROM nearest WHERE best.frames = 1
"""


_TRUTHS = """
CREATE OR REPLACE TEMP TABLE truths AS
SELECT topic, partition, "offset", "index",
       arg_max(coalesce(label, ''), {'at': coalesce(epoch_us(labelled_at), 0), 'number': number}) AS truth,
       count(*) AS labels, min(coalesce(label, '')) <> max(coalesce(label, '')) AS contradictory
FROM found GROUP BY ALL
"""


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of served images.

    Attributes:
        source: where the labels that can be used come from.
        labelled: accepted images with a label of a known class.
        notes: what became of the other labels.
    """

    source: str
    labelled: int
    notes: tuple[str, ...]


def label(
    connection: duckdb.DuckDBPyConnection,
    root: str | Sequence[str],
    *,
    file: str | None,
    within_us: int = 0,
    classes: Collection[str] | None = None,
) -> Labels:
    """Create the view `labelled`: the accepted rows of `predictions` that have a label of a known class, with `truth`.

    Args:
        connection: with the table `predictions`.
        root: the output, which may contain `labels/`; or several outputs.
        file: a file of labels, the only source if given; None: the labels under the root, and those of the producer.
        within_us: how far a label's time may be from its frame's, microseconds.
        classes: the models' classes, in addition to those that occur in the rows.

    Raises:
        SettingsError: the file cannot be used.
        ChainError: a file under the root is damaged.
        StoreUnavailable: the store does not answer.
    """
    notes: list[str] = []
    rows = 0
    named = file or ""
    if file is not None:
        read_labels(connection, file)
    else:
        chain = read_chain(connection, [root] if isinstance(root, str) else root)
        named = chain.source
        notes += chain.notes
    if file is not None or chain.messages:
        matched = match(connection, within_us=within_us)
        rows = matched.rows
        notes += _of_matching(matched, within_us)
    else:
        connection.execute(_NO_TRUTHS)
    connection.execute(_VIEW.format(truth=_FROM_ALL if file is None else _FROM_FILE))
    _know(connection, classes)
    connection.execute(_LABELLED)
    counts = [_Count(*row) for row in connection.execute(_COUNTS).fetchall()]
    notes += _of_counts(counts, rows, by_file=classes is not None)
    usable = [count for count in counts if count.accepted and count.known]
    if not counts and file is None:
        notes.append(NO_LABELS)
    return Labels(_source(usable, named), sum(count.images for count in usable), tuple(notes))


@dataclass(frozen=True, slots=True)
class _Count:
    """Images with the same truth. `collected`: the label is from the file or the chain, not from the producer."""

    accepted: bool
    truth: str
    known: bool
    collected: bool
    images: int


def _know(connection: duckdb.DuckDBPyConnection, classes: Collection[str] | None) -> None:
    connection.execute(_KNOWN)
    if classes is not None:
        connection.execute("INSERT INTO known SELECT unnest(?::VARCHAR[])", [sorted(classes)])


def _source(usable: Sequence[_Count], named: str) -> str:
    named_by = {count.collected: named if count.collected else "the producer" for count in usable}
    return " and ".join(named_by[collected] for collected in (True, False) if collected in named_by)


def _of_matching(matched: Matched, within_us: int) -> list[str]:
    notes = []
    if matched.without_frame:
        within = f"within {within_us / 1e6:g} s of" if within_us else "at exactly"
        notes.append(
            f"{matched.without_frame} of {matched.given} labels name a stream and a time without a frame {within} "
            "it; see --label-within"
        )
    if matched.ambiguous:
        notes.append(f"{matched.ambiguous} labels name a time that several frames share: they were left out")
    if matched.superseded:
        notes.append(
            f"{matched.superseded} images have several labels, {matched.contradictory} of them contradictory: the "
            "latest counts, by labelled_at, else by order of arrival"
        )
    return notes


def _of_counts(counts: Sequence[_Count], rows: int, *, by_file: bool) -> list[str]:
    notes = []
    joined = sum(count.images for count in counts if count.collected)
    if joined < rows:
        notes.append(f"{rows - joined} labels match no image of these cameras and this time, or withdraw a label")
    if lost := sum(count.images for count in counts if not count.accepted):
        notes.append(f"{lost} labelled images were not accepted, so they have no prediction")
    unknown: dict[str, int] = {}
    for count in counts:
        if count.accepted and not count.known:
            unknown[count.truth] = unknown.get(count.truth, 0) + count.images
    if unknown:
        names = ", ".join(f"{truth!r} ({images})" for truth, images in list(unknown.items())[:_NAMED])
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        remedy = "correct them" if by_file else "correct them, or name the classes by --model.classes"
        notes.append(
            f"{sum(unknown.values())} labels are of classes that are not served, and were left out: {names}{more}; "
            f"{remedy}"
        )
    return notes


@dataclass(frozen=True, slots=True)
class Matched:
    """Counts of the matching: labels that were given, and rows that have one."""

    given: int
    rows: int
    without_frame: int  # labels by time without a frame of that time
    ambiguous: int  # labels whose time several frames share
    superseded: int  # rows with more than one label
    contradictory: int  # of them, rows whose labels differ


def match(connection: duckdb.DuckDBPyConnection, *, within_us: int) -> Matched:
    """Create `truths` from `given`: a row's latest label by `labelled_at`, then by `number`; '' if it was withdrawn.

    Args:
        connection: with `given` and `predictions`.
        within_us: how far a label's time may be from its frame's, microseconds, >= 0.
    """
    connection.execute(_BY_ROW)
    timed = _count(connection, "SELECT count(*) FROM given WHERE row_id IS NULL")
    matched = ambiguous = 0
    if timed:
        connection.execute(_NEAREST, {"within": within_us, "width": max(within_us, 1)})
        matched = _count(connection, "SELECT count(*) FROM nearest")
        ambiguous = _count(connection, "SELECT count(*) FROM nearest WHERE best.frames > 1")
        connection.execute(_BY_TIME)
        connection.execute("DROP TABLE nearest")
    given = _count(connection, "SELECT count(*) FROM given")
    connection.execute(_TRUTHS)
    connection.execute("DROP TABLE found; DROP TABLE given")
    return Matched(
        given=given,
        rows=_count(connection, "SELECT count(*) FROM truths"),
        without_frame=timed - matched,
        ambiguous=ambiguous,
        superseded=_count(connection, "SELECT count(*) FROM truths WHERE labels > 1"),
        contradictory=_count(connection, "SELECT count(*) FROM truths WHERE contradictory"),
    )


def _count(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(connection.execute(sql).fetchall()[0][0])
