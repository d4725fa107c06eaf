"""The join of true labels and rows: the view `labelled`, on which the queries of `judge` run.

Labels come from a file. Without one, they come from what `adawise labels` stored under the root, and from the producer
(`true_label`) where that has none. If a row has several labels, the latest counts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import duckdb

from adawise.labels.file import read_labels
from adawise.labels.match import Matched, match
from adawise.labels.stored import read_chain

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
        notes.append(
            "there are no labels of these images: give --labels FILE, collect them with `adawise labels`, or have "
            "the producer send them"
        )
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
