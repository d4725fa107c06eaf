"""What the tables said, by camera: series have all that the page draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import duckdb
import numpy as np
import pytest

from adawise.labels.benefit.queries import create_accepted
from adawise.sink import schemas
from adawise_drift.collect import ALL, Collected, collect
from adawise_drift.queries import LISTED
from tests.drift.worlds import CameraWorld, camera, traces


@pytest.fixture(scope="module")
def world() -> CameraWorld:
    return camera(5, 0, days=3, searched=False)


@pytest.fixture(scope="module")
def connection(world: CameraWorld) -> Iterator[duckdb.DuckDBPyConnection]:
    opened = duckdb.connect()
    opened.execute("SET TimeZone = 'UTC'")
    for name, made in (("traces", traces([world])), ("predictions", schemas.PREDICTIONS.empty_table())):
        opened.register(f"{name}_made", made)
        opened.execute(f"CREATE TABLE {name} AS SELECT *, captured_at AS time FROM {name}_made")
    opened.execute("CREATE TABLE levels (alpha DOUBLE, reference DOUBLE)")
    opened.execute("CREATE TABLE labelled AS SELECT stream_id, time, 'car' AS label, 'car' AS truth FROM traces")
    opened.execute("UPDATE labelled SET truth = 'bus' WHERE time >= (SELECT min(time) + INTERVAL 1 DAY FROM traces)")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def found(connection: duckdb.DuckDBPyConnection) -> Collected:
    return collect(connection, is_labelled=True)


def test_pictures_are_means_over_the_batches_of_a_bin(connection: duckdb.DuckDBPyConnection, found: Collected) -> None:
    series = found.series["camera-000"]
    rows = connection.execute(
        "SELECT epoch_us(time) // $width AS bin, avg(luminance_mean), avg(colourfulness_mean) FROM traces "
        "GROUP BY bin ORDER BY bin",
        {"width": found.bin_us},
    ).fetchnumpy()
    bins, brightness, colour = rows.values()
    kept = np.isin(series.time_us // found.bin_us, bins)
    assert series.luminance[kept] == pytest.approx(brightness, abs=1e-6)
    assert series.colourfulness[kept] == pytest.approx(colour, abs=1e-6)


def test_batches_with_a_shortlist_are_not_compared_with_the_level_of_all_classes(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    own = connection.cursor()
    own.execute("INSERT INTO levels SELECT DISTINCT alpha, 1.25 FROM traces")
    own.execute(
        "BEGIN; UPDATE traces SET shortlist = 'd1g3st' WHERE time >= (SELECT min(time) + INTERVAL 1 DAY FROM traces)"
    )
    try:
        series = collect(own, is_labelled=True).series["camera-000"]
    finally:
        own.execute("ROLLBACK; DELETE FROM levels")
    day = series.time_us < series.time_us[0] + 86_400_000_000
    assert series.reference[day][:-1] == pytest.approx(1.25)
    assert np.isnan(series.reference[~day][1:]).all()


def test_labels_are_counted_in_the_bin_of_their_image(found: Collected) -> None:
    binned = found.binned["camera-000"]
    day = binned.time_us < binned.time_us[0] + 86_400_000_000
    assert (binned.correct == binned.labelled)[day][:-1].all()
    assert not binned.correct[~day][1:].any()


def test_over_all_cameras_there_is_no_picture(found: Collected) -> None:
    assert ALL not in found.series
    assert np.isnan(found.overall.luminance).all()


def test_a_batch_that_goes_on_beyond_the_time_that_is_read_counts_as_served_like_the_one_before() -> None:
    """Its trace is not read, since it ends later: three images of the camera with a shortlist, two of the other.

    A camera that began anew counts its batches from 0 again.
    """
    with closing(duckdb.connect()) as connection:
        connection.execute(
            "CREATE TABLE traces AS SELECT * FROM (VALUES ('t', 0, 'gate', 4, 0, 9, 'list'), "
            "('t', 0, 'gate', 5, 10, 19, 'list'), ('t', 0, 'anew', 9, 1, 4, 'list'), "
            "('t', 0, 'anew', 0, 6, 8, 'list'), ('t', 0, 'ramp', 7, 2, 11, 'list'), ('t', 0, 'ramp', 8, 12, 21, NULL)"
            ") AS _(topic, partition, stream_id, batch_number, first_offset, last_offset, shortlist)"
        )
        connection.execute(
            "CREATE TABLE predictions AS SELECT 't' AS topic, 0 AS partition, stream_id, batch_number, \"offset\", "
            "'accepted' AS status, .5 AS alpha, .1 AS entropy FROM (VALUES ('gate', 4, 5), ('gate', 6, 20), "
            "('gate', 6, 22), ('gate', 6, 25), ('ramp', 7, 3), ('ramp', 9, 23), ('ramp', 9, 24), ('anew', 1, 21)"
            ') AS _(stream_id, batch_number, "offset")'
        )
        connection.execute(create_accepted(LISTED))
        counts = connection.execute("SELECT shortlist, count(*) FROM accepted GROUP BY shortlist ORDER BY 2").fetchall()
    assert counts == [(None, 2), ("list", 6)]
