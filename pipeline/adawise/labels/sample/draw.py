"""The draw from a root: the days that ended and have no file yet, each camera by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np

from adawise.labels.sample.days import SampledImage, as_time, digest, path_of, write_day
from adawise.labels.sample.design import Design, draw
from adawise.output.read.duckdb_rows import translated
from adawise.output.read.rows import read_predictions

_DAY_US = 86_400_000_000
_COLUMNS = (
    *("topic", "partition", "offset", "index", "stream_id", "time", "status", "label", "confidence"),
    "batch_number",
)

_DAYS = """
SELECT epoch_us(time) // $day AS day, time > make_timestamptz($now) AS is_ahead, count(*) FROM served
GROUP BY ALL ORDER BY day
"""
_OF_DAY = """
CREATE OR REPLACE TEMP TABLE of_day AS
SELECT row_number() OVER (PARTITION BY stream_id ORDER BY topic, partition, "offset", "index") - 1 AS place,
       dense_rank() OVER (PARTITION BY stream_id ORDER BY topic, partition, batch_number) - 1 AS batch, served.*
FROM served
WHERE time >= make_timestamptz($from) AND time < make_timestamptz($to)
"""
_CAMERAS = "SELECT DISTINCT stream_id FROM of_day ORDER BY stream_id"
_IMAGES = "SELECT confidence, batch FROM of_day WHERE stream_id = $stream ORDER BY place"
_ROWS = """
SELECT place, concat_ws('/', topic, partition, "offset", "index"), epoch_us(time), label FROM of_day
WHERE stream_id = $stream AND place IN (SELECT unnest($places))
"""


@dataclass(frozen=True, slots=True)
class SampledDays:
    """The outcome of a draw: files written, images in them by all cameras, and how many days had one.

    `ahead`: images that state a time in the future.
    """

    files: tuple[Path, ...]
    images: int
    cameras: int
    kept: int
    ahead: int


def draw_days(
    root: str, folder: Path, design: Design, *, streams: Sequence[str] | None, since: datetime | None, now: datetime
) -> SampledDays:
    """Draw each day (UTC) that ended and has no file in the folder, and write its file.

    A day has ended once it is over and an image of a later day was served; images of it that are served afterwards are
    not drawn. Images that state a time after `now`, by a camera's wrong clock, end no day, and those before 1970 are
    left out. `since` is moved to the begin of its day.

    Raises:
        SettingsError: no worker wrote to the root, or a file cannot be written.
        ChainError, StoreUnavailable: by the root.
    """
    midnight = None if since is None else since.replace(hour=0, minute=0, second=0, microsecond=0)
    files, images, cameras, kept = list[Path](), 0, set[str](), 0
    with translated(root), duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        rows = read_predictions(root, streams, midnight, None, _COLUMNS).relation(connection)
        kind = "status = 'accepted' AND label IS NOT NULL AND stream_id IS NOT NULL AND epoch_us(time) >= 0"
        rows.filter(kind).create_view("served")
        now_us = round(now.timestamp() * 1e6)
        counted = connection.execute(_DAYS, {"day": _DAY_US, "now": now_us}).fetchall()
        ahead = sum(count for _, is_ahead, count in counted if is_ahead)
        for day in [day for day, is_ahead, _ in counted if not is_ahead][:-1]:
            if path_of(folder, day).exists():
                kept += 1
                continue
            found = list(_of_day(connection, design, day))
            if found:
                files.append(write_day(folder, day, found))
                images += len(found)
                cameras |= {each.stream_id for each in found}
    return SampledDays(tuple(files), images, len(cameras), kept, ahead)


def _of_day(connection: duckdb.DuckDBPyConnection, design: Design, day: int) -> Iterator[SampledImage]:
    """Yield the images of a day that are drawn, camera by camera, in the order of their rows."""
    connection.execute(_OF_DAY, {"from": day * _DAY_US, "to": (day + 1) * _DAY_US})
    for (stream_id,) in connection.execute(_CAMERAS).fetchall():
        known = connection.execute(_IMAGES, {"stream": stream_id}).fetchnumpy()
        values = np.ma.filled(known["confidence"].astype(np.float64), np.nan)
        confidence = np.clip(np.nan_to_num(values, nan=0.5), 0.0, 1.0)
        drawn = draw(confidence, np.ma.filled(known["batch"]).astype(np.int64), design, stream_id, day)
        found = connection.execute(_ROWS, {"stream": stream_id, "places": drawn.place.tolist()}).fetchall()
        rows = {place: row for place, *row in found}
        for group, place in enumerate(drawn.place.tolist()):
            row_id, time_us, label = rows[place]
            yield SampledImage(
                row_id=row_id,
                stream_id=stream_id,
                captured_at=as_time(time_us),
                label="",
                probability=float(drawn.probability[group]),
                confidence=float(confidence[place]),
                group=group,
                group_images=int(drawn.images[group]),
                group_confidence=float(drawn.mean[group]),
                groups=len(drawn.place),
                images=len(confidence),
                mean_confidence=float(confidence.mean()),
                floor=design.floor,
                design=design.by,
                seed=design.seed,
                served=digest(row_id, label),
            )
