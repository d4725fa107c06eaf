"""Shortlists that are proposed for cameras, from the rows of a root; `adawise shortlists` prints them.

`proposed` is the rule. Its evidence is counted by DuckDB, which spills what does not fit into memory. Rows that were
served under a shortlist say nothing about what else a camera shows, and are no evidence.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from glob import escape
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from adawise.errors import SettingsError
from adawise.output.read.rows import read_predictions, read_traces
from adawise.text import counted, near_match, some, three

try:
    import duckdb
except ImportError as error:
    raise SettingsError(
        "proposing shortlists needs the package duckdb; install it with: pip install 'adawise[report]'"
    ) from error

if TYPE_CHECKING:
    from adawise.labels.join import Labels

LEAST_IMAGES = 1_000
"""The fewest images from which a shortlist is proposed."""

LEAST_CONFIDENCE = 0.65
"""The lowest mean confidence at which a shortlist is proposed: below it, classes that a camera shows are not seen."""

LEAST_WEIGHT = 0.0075
"""The smallest share of the weight of all classes with which a class is listed."""

MOST_LEFT_OUT = 0.1
"""The largest share of the weight that classes below `LEAST_WEIGHT` may have together for a shortlist to be proposed.

Above it, a camera shows so many classes that each has little weight. It also bounds the classes that the models lack.
"""

_NAMED = 5  # classes that model.classes lacks
_KEY = ("topic", "partition", "stream_id", "batch_number")
_ROWS = (
    *(*_KEY, "offset", "index", "captured_at", "time", "status", "true_label"),
    *("label", "confidence", "top_labels", "top_probabilities", "zero_shot_label", "fine_tuned_label"),
)
_BATCHES = (*_KEY, "first_offset", "last_offset", "shortlist")
_MEMORY_BYTES = 1 << 30
_FETCHED = 10_000  # rows at a time
_PARTS = 1_000_000  # of 1: a sum of whole numbers is the same in any order, unlike one of floats


@dataclass(frozen=True, slots=True)
class SeenClass:
    """Counts of one class over the rows of a camera.

    Attributes:
        name: the class.
        images: images that were served as this class.
        weight: sum over all images of the square of the class's probability, as far as rows have it; >= 0.
        labelled: images with this class as their label.
    """

    name: str
    images: int
    weight: float
    labelled: int = 0


@dataclass(frozen=True, slots=True)
class CameraEvidence:
    """Counts over the rows of a camera.

    Attributes:
        stream_id: the camera.
        images: accepted images that are evidence.
        batches: batches without a shortlist.
        listed: accepted images that are no evidence, because they were served under a shortlist.
        confidence: mean confidence of `images`; nan without any.
        first, last: when the first and the last of `images` were taken; None if no time is known.
        classes: the classes that occur, by `weight`, the largest first.
    """

    stream_id: str
    images: int
    batches: int
    listed: int
    confidence: float
    first: datetime | None
    last: datetime | None
    classes: tuple[SeenClass, ...] = ()


def proposed(classes: Sequence[SeenClass]) -> tuple[SeenClass, ...]:
    """Return the classes of a shortlist: those with `LEAST_WEIGHT` of the weight of all, or with a label.

    Squares count what was predicted with confidence: a class that is confused with the ones that a camera shows has
    many small probabilities, and little weight. The constants were chosen by docs/measurements/method.md#shortlists.

    Example:
        >>> [each.name for each in proposed([SeenClass("car", 900, 700.0), SeenClass("boat", 20, 4.0)])]
        ['car']
    """
    least = LEAST_WEIGHT * sum(each.weight for each in classes)
    return tuple(each for each in classes if each.weight >= least > 0 or each.labelled)


@dataclass(frozen=True, slots=True)
class Proposal:
    """The shortlist that is proposed for a camera, or the reason why there is none.

    Attributes:
        camera: its evidence.
        pattern: the shell pattern that matches the camera alone; "" if there is none that the settings take.
        classes: the classes of the shortlist; none if there is a problem.
        problem: why there is no shortlist; "" if there is one.
    """

    camera: CameraEvidence
    pattern: str
    classes: tuple[SeenClass, ...]
    problem: str = ""

    @classmethod
    def of(cls, camera: CameraEvidence, known: Collection[str] | None = None) -> Proposal:
        """Return the proposal for a camera, of these classes alone (None: of any)."""
        pattern = pattern_of(camera.stream_id)
        seen = [each for each in camera.classes if known is None or each.name in known]
        listed = proposed(seen)
        if problem := _problem(camera, seen, listed, known) or ("" if pattern else _NO_PATTERN):
            return cls(camera, pattern, (), problem)
        return cls(camera, pattern, listed)

    @property
    def left_out(self) -> tuple[SeenClass, ...]:
        """The classes as which images were served and that are not on the shortlist, the most frequent first."""
        listed = {each.name for each in self.classes}
        others = [each for each in self.camera.classes if each.images and each.name not in listed]
        return tuple(sorted(others, key=lambda each: -each.images))


_NO_PATTERN = "no pattern can name it: scene.shortlists takes printable text alone"


def _problem(
    camera: CameraEvidence, seen: Sequence[SeenClass], listed: Sequence[SeenClass], known: Collection[str] | None
) -> str:
    """Return why there is no shortlist of `listed` out of `seen`, the camera's classes that are known; "" if none."""
    if camera.listed and not camera.images:
        return f"its {counted(camera.listed, 'image')} were served under a shortlist, and are no evidence of others"
    if camera.images < LEAST_IMAGES:
        few = f"{counted(camera.images, 'image')} are too few to propose a shortlist: {LEAST_IMAGES:,} are needed"
        return few + (f", and {camera.listed:,} more that a shortlist served are no evidence" if camera.listed else "")
    if not camera.confidence >= LEAST_CONFIDENCE:
        low = f"the mean confidence of its images is {three(camera.confidence)}"
        return f"{low}, and below {three(LEAST_CONFIDENCE)} a shortlist may lack classes that it shows"
    weight = sum(each.weight for each in seen)
    if (share := 1 - sum(each.weight for each in listed) / weight if weight else 0.0) > MOST_LEFT_OUT:
        rest = f"its classes below {LEAST_WEIGHT:.2%} of the weight have {share:.1%} of it together"
        return f"{rest}, and above {MOST_LEFT_OUT:.0%} a shortlist may lack classes that it shows"
    unknown = [each for each in camera.classes if known is not None and each.name not in known]
    named = some([f"{each.name!r} ({each.images:,})" for each in unknown if each.images], _NAMED)
    if len(listed) < 2 and named:
        return f"of the classes that it shows, model.classes has fewer than two; it was also served as {named}"
    if len(listed) < 2:
        return "it shows fewer than two classes, and a shortlist has two or more"
    if known is not None and len(listed) == len({*known}):
        return "it shows every class, and needs no shortlist"
    every = sum(each.weight for each in camera.classes)
    if (share := sum(each.weight for each in unknown) / every if every else 0.0) > MOST_LEFT_OUT:
        lacks = f"classes that model.classes lacks have {share:.1%} of the weight"
        served = f"; it was served as {named}" if named else ""
        return f"{lacks}, and above {MOST_LEFT_OUT:.0%} a shortlist may lack classes that it shows{served}"
    return ""


def pattern_of(stream_id: str) -> str:
    """Return the shell pattern that matches this stream id alone, as `scene.shortlists` takes it; "" if there is none.

    Example:
        >>> pattern_of("hall[2]*")
        'hall[[]2][*]'
    """
    if not stream_id or not stream_id.isprintable():
        return ""
    return re.sub(r"^ | $", "[ ]", escape(stream_id))  # settings strip the spaces around a text


@dataclass(frozen=True, slots=True)
class RootEvidence:
    """Counts over the rows of a root.

    Attributes:
        cameras: the evidence of each camera, by name; it can be read once, while the root is open.
        labels: the labels that were found.
    """

    cameras: Iterator[CameraEvidence]
    labels: Labels


@contextmanager
def open_evidence(
    root: str,
    streams: Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    labels: str | None = None,
    label_within_us: int = 0,
    classes: Collection[str] | None = None,
    memory_bytes: int = _MEMORY_BYTES,
) -> Iterator[RootEvidence]:
    """Count images and classes over the rows of a root.

    Args:
        root: the output of workers, a folder or a URL.
        streams: as of `read_predictions`.
        since: as of `read_predictions`.
        until: as of `read_predictions`.
        labels: a file of labels; None: those under the root, and those that the producer sent.
        label_within_us: how far a label's time may be from its frame's, microseconds.
        classes: the classes of the models, in addition to those in the rows.
        memory_bytes: what the database may use; the rest is spilled.

    Raises:
        SettingsError: no worker wrote there, a camera has no accepted image, the file of labels cannot be used, or
            DuckDB is not installed.
        ChainError: a file is damaged.
        StoreUnavailable: the store does not answer.
    """
    # Imported here, after the check for DuckDB above.
    from adawise.labels.join import label
    from adawise.output.read.duckdb_rows import connect, translated

    spill = tempfile.TemporaryDirectory(prefix="adawise-shortlists-")
    with spill as folder, translated(root), closing(connect(folder, memory_bytes)) as connection:
        connection.execute("SET enable_progress_bar = false")  # it would be among the tables
        read_predictions(root, streams, since, until, _ROWS).relation(connection).create_view("predictions")
        read_traces(root, streams, since, until, _BATCHES).relation(connection).create_view("batches")
        # Of a batch whose last image is outside of the time, others may be within it.
        read_traces(root, streams, columns=_BATCHES).relation(connection).create_view("traces")
        found = label(connection, root, file=labels, within_us=label_within_us, classes=classes)
        connection.execute(_SERVED)
        cameras = [CameraEvidence(*row) for row in connection.execute(_CAMERAS, {"parts": _PARTS}).fetchall()]
        _expect(connection, streams or (), {camera.stream_id for camera in cameras}, root)
        yield RootEvidence(_with_classes(connection, cameras), found)


def _expect(connection: duckdb.DuckDBPyConnection, streams: Sequence[str], found: Collection[str], root: str) -> None:
    """Raise SettingsError for a stream that is not among those that were found."""
    missing = next((stream for stream in streams if stream not in found), None)
    if missing is None:
        return
    names = read_traces(root, columns=["stream_id"]).relation(connection).distinct().fetchall()
    near = near_match(missing, sorted(name for (name,) in names if name is not None))
    raise SettingsError(
        f"expected accepted images of camera {missing!r} under {root}, but there are none of this time; correct "
        "--streams, --since or --until" + (f"; did you mean {near!r}?" if near else "")
    )


def _with_classes(connection: duckdb.DuckDBPyConnection, cameras: Sequence[CameraEvidence]) -> Iterator[CameraEvidence]:
    by_camera = groupby(_fetched(connection.execute(_CLASSES, {"parts": _PARTS})), key=itemgetter(0))
    name, rows = next(by_camera, ("", iter(())))
    for camera in cameras:
        classes = list[SeenClass]()
        if camera.stream_id == name:
            classes += [SeenClass(each, images, parts / _PARTS, known) for _, each, images, parts, known in rows]
            name, rows = next(by_camera, ("", iter(())))
        yield replace(camera, classes=tuple(classes))


def _fetched(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str, int, int, int]]:
    while rows := cursor.fetchmany(_FETCHED):
        yield from rows


_SERVED = """
CREATE TEMP VIEW listed AS
SELECT topic AS t, partition AS p, stream_id AS s, batch_number AS b, first_offset, last_offset
FROM traces WHERE shortlist IS NOT NULL;

CREATE TEMP VIEW served AS
SELECT stream_id, time, confidence, top_labels, top_probabilities, s IS NOT NULL AS is_listed
FROM predictions LEFT JOIN listed
     ON topic = t AND partition = p AND stream_id = s AND batch_number = b
        AND "offset" BETWEEN first_offset AND last_offset
WHERE status = 'accepted' AND stream_id IS NOT NULL
"""

_CAMERAS = """
WITH unlisted AS (SELECT stream_id, count(*) AS batches FROM batches WHERE shortlist IS NULL GROUP BY stream_id)
SELECT stream_id, count(*) FILTER (NOT is_listed), coalesce(any_value(batches), 0), count(*) FILTER (is_listed),
       coalesce(avg(try_cast(round(confidence * $parts) AS BIGINT)) FILTER (NOT is_listed) / $parts, 'nan'::DOUBLE),
       min(time) FILTER (NOT is_listed), max(time) FILTER (NOT is_listed)
FROM served LEFT JOIN unlisted USING (stream_id)
GROUP BY stream_id ORDER BY stream_id
"""

_CLASSES = """
WITH entries AS (
    SELECT stream_id, unnest(top_labels) AS name, unnest(top_probabilities) AS probability,
           generate_subscripts(top_labels, 1) AS place
    FROM served WHERE NOT is_listed
), counted AS (
    SELECT stream_id, name, count(*) FILTER (place = 1) AS images,
           sum(try_cast(round(probability * probability * $parts) AS BIGINT))::BIGINT AS parts -- null for nan
    FROM entries GROUP BY stream_id, name
), known AS (
    SELECT stream_id, truth AS name, count(*) AS labelled FROM labelled WHERE stream_id IS NOT NULL GROUP BY ALL
)
SELECT stream_id, name, coalesce(images, 0), coalesce(parts, 0) AS parts, coalesce(labelled, 0)
FROM counted FULL JOIN known USING (stream_id, name)
ORDER BY stream_id, parts DESC, name
"""
