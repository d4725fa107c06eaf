"""The analysis of the day in `yard`: it says what the script says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import duckdb
import numpy as np
import pytest

from adawise.errors import SettingsError
from adawise.text import as_long_duration
from adawise_drift import queries
from adawise_drift.cameras import analyse_cameras, silences
from adawise_drift.changes.times import bin_width_us
from adawise_drift.collect import ALL, Collected, collect, prepare
from adawise_drift.events.result import Camera, CameraChange, DriftEvent, Example
from adawise_drift.events.together import at_once, groups, incidents, shared
from tests.drift import yard
from tests.drift.page.building import a_camera, a_report, an_event
from tests.drift.yard import BATCHES, EVENING_US, HOUR_US, IMAGES, NEW, NOON_US, OLD, SILENT_US


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    opened = yard.database()
    opened.execute("INSERT INTO levels VALUES (0.8, 0.5)")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def found(connection: duckdb.DuckDBPyConnection) -> Collected:
    return collect(connection)


@pytest.fixture(scope="module")
def cameras(connection: duckdb.DuckDBPyConnection, found: Collected) -> dict[str, Camera]:
    return {camera.stream_id: camera for camera in analyse_cameras(found, ["yard"], smallest=0.1)[0]}


@pytest.fixture(scope="module")
def events(found: Collected) -> tuple[DriftEvent, ...]:
    return analyse_cameras(found, ["yard"], smallest=0.1)[1]


def test_series_have_the_means_and_the_extremes_of_each_bin(found: Collected) -> None:
    series = found.series["yard"]
    assert found.bin_us == 300_000_000
    assert series.images.sum() == BATCHES * IMAGES
    assert series.time_us[0] == yard.BEGIN_US
    assert np.all(np.diff(series.time_us) == found.bin_us)
    assert np.all((series.alpha_low <= series.alpha + 1e-12) & (series.alpha <= series.alpha_high + 1e-12))
    noon = np.searchsorted(series.time_us, NOON_US)
    assert series.tried_high[noon] == 1.0  # of the one batch that tried it
    assert series.tried_high[noon + 1] < 1.0
    np.testing.assert_allclose(series.alpha[:noon].mean(), 0.8, atol=0.01)
    np.testing.assert_allclose(series.posterior_sd, 0.2)
    np.testing.assert_allclose(series.forward_equivalents, 1.25)


def test_the_reference_is_that_of_the_alphas_that_were_served(found: Collected) -> None:
    listed_nowhere = found.series["yard"].reference
    assert np.nanmax(listed_nowhere) == np.nanmin(listed_nowhere) == 0.5
    assert np.isnan(found.series["dock"].reference).all()  # 0.8 never served it
    assert np.isnan(found.series["gate"].reference).all(), "what was served among a shortlist has none"


def test_rejected_images_have_bins_of_their_own_where_no_batch_was_served(found: Collected) -> None:
    tunnel = found.series["tunnel"]
    assert tunnel.rejected.sum() == found.facts["tunnel"]["rejected"] == 15 * 30 * IMAGES // 4
    assert found.reasons == {"tunnel": {"undecodable_image": 900}}
    assert not ((tunnel.time_us >= SILENT_US[0]) & (tunnel.time_us < SILENT_US[1])).any()


def test_all_cameras_together_are_their_sum(found: Collected) -> None:
    assert set(found.series) == set(yard.PLACES)
    assert found.overall.images.sum() == sum(series.images.sum() for series in found.series.values())
    assert found.rows == (5 * BATCHES - 90) * IMAGES


def test_the_levels_and_the_moments_of_the_script_are_found(cameras: dict[str, Camera]) -> None:
    expected = {"yard": (NOON_US, 0.8, 0.2), "ramp": (NOON_US, 0.8, 0.2), "dock": (EVENING_US, 0.3, 0.7)}
    for name, (at, before, after) in expected.items():
        (change,) = cameras[name].changes
        assert abs(change.time_us - at) <= 5 * yard.EVERY_US, name
        assert change.earliest_us <= at <= change.latest_us + yard.EVERY_US
        np.testing.assert_allclose([change.before, change.after], [before, after], atol=0.03)
        np.testing.assert_allclose(cameras[name].drift, abs(after - before), atol=0.05)
        assert cameras[name].levels[0].until_us == change.time_us
    assert cameras["gate"].changes == ()
    assert cameras["gate"].drift == 0.0


def test_what_the_newest_shortlist_lacks_is_named(cameras: dict[str, Camera], found: Collected) -> None:
    after_noon = BATCHES // 2
    assert found.off_list == {"gate": (after_noon * IMAGES, {"truck": 172, "bus": 7})}
    assert {name: camera.lacking for name, camera in cameras.items() if camera.lacking} == {
        "gate": (f"172 of {after_noon * IMAGES} images surely show 'truck', which is not on its shortlist",)
    }


def test_only_what_is_judged_counts_for_a_shortlist(connection: duckdb.DuckDBPyConnection) -> None:
    found = collect(connection, judged_us=EVENING_US)
    assert found.off_list == {"gate": (BATCHES // 4 * IMAGES, {"truck": 86, "bus": 4})}


def test_cameras_come_by_how_far_they_drifted(cameras: dict[str, Camera]) -> None:
    assert set(list(cameras)[:2]) == {"yard", "ramp"}
    assert list(cameras)[-1] == "gate"


def test_frames_are_asked_for_in_the_order_of_the_report_once_for_each_incident(found: Collected) -> None:
    requests = list[str]()

    def examples(stream_id: str, before_us: int, *_: int) -> tuple[Example, ...]:
        requests.append(stream_id)
        return (Example("before", before_us, f"frames/0/{len(requests)}/0", "car", 0.9, 0.5, "data:"),)

    _, events = analyse_cameras(found, ["yard"], smallest=0.1, examples=examples)
    leads = [those[0] for those in incidents(events).values() if those[0].severity != "noted"]
    assert len(leads) > 2
    assert requests == [lead.stream_id for lead in leads]
    assert [lead.examples[0].row_id for lead in leads] == [f"frames/0/{n + 1}/0" for n in range(len(leads))]
    assert len({example.row_id for event in events for example in event.examples}) == len(leads)


def test_the_level_after_a_ramp_begins_where_it_has_ended(found: Collected) -> None:
    path = found.paths["ramp"]
    count = len(path.alpha)
    slow = replace(path, alpha=np.interp(np.arange(count), [count // 3, 2 * count // 3], [0.8, 0.2]))
    slowed = replace(found, paths={**found.paths, "ramp": slow})
    cameras, _ = analyse_cameras(slowed, ["yard"], smallest=0.1)
    (camera,) = [camera for camera in cameras if camera.stream_id == "ramp"]
    (change,), (before, after) = camera.changes, camera.levels
    assert change.kind == "ramp"
    assert (before.until_us, after.since_us) == (change.time_us, change.latest_us)
    assert after.since_us - before.until_us > HOUR_US


def test_fog_is_told_with_the_objective_and_the_classes_and_who_else_it_came_over(
    events: tuple[DriftEvent, ...],
) -> None:
    (fog,) = (event for event in events if event.stream_id == "yard" and event.measure == "alpha")
    those = {event.measure: event for event in events if event.incident == fog.incident}
    assert {"alpha", "objective", "mix"} <= set(those)
    assert (those["objective"].before, those["objective"].after) == pytest.approx((0.8, 1.6), abs=0.1)
    assert "empty street 0\u00a0% to 60\u00a0%" in those["mix"].detail


def test_another_model_is_told_before_all_else(events: tuple[DriftEvent, ...]) -> None:
    (switched,) = (event for event in events if event.stream_id == "dock" and event.measure == "model")
    (moved,) = (event for event in events if event.stream_id == "dock" and event.measure == "alpha")
    assert moved.incident == switched.incident
    assert moved.causes[0].kind == "model"
    assert switched.detail == f"{NEW} after {OLD}"


def test_silence_and_rejects_are_told(cameras: dict[str, Camera], events: tuple[DriftEvent, ...]) -> None:
    (moved,) = (event for event in events if event.stream_id == "tunnel" and event.measure == "alpha")
    assert moved.causes[0].sentence == "the camera was silent for 3 hours"
    (rejects,) = (event for event in events if event.stream_id == "tunnel" and event.measure == "rejects")
    assert (rejects.before, rejects.after) == pytest.approx((0.0, 0.25), abs=0.01)
    assert cameras["tunnel"].silences == ((SILENT_US[0] - yard.EVERY_US, SILENT_US[1]),)
    assert cameras["yard"].silences == ()


def test_a_camera_whose_images_are_all_broken_for_good_has_not_ended() -> None:
    with yard.database() as connection:
        broken = {"at": EVENING_US}
        connection.execute("DELETE FROM traces WHERE stream_id = 'gate' AND time >= make_timestamptz($at)", broken)
        connection.execute(
            "UPDATE predictions SET status = 'rejected', reason = 'undecodable_image', label = NULL "
            "WHERE stream_id = 'gate' AND time >= make_timestamptz($at)",
            broken,
        )
        _, events = analyse_cameras(collect(connection), ["yard"], smallest=0.1)
    (event,) = (event for event in events if event.stream_id == "gate")
    assert (event.measure, event.shape, event.severity, event.after) == ("rejects", "step", "failing", 1.0)
    assert event.earliest_us < event.since_us == EVENING_US
    assert event.next.startswith("adawise dlq list --stream gate")
    assert a_report([a_camera("gate", [(0, 0.3)])], events=(event,)).states == {"gate": "failing"}


def test_cameras_in_the_same_fog_are_a_group(found: Collected, cameras: dict[str, Camera]) -> None:
    changes = {name: camera.changes for name, camera in cameras.items()}
    tight = {  # hours wide, two of five cameras meet by chance
        name: tuple(replace(each, earliest_us=each.time_us, latest_us=each.time_us) for each in those)
        for name, those in changes.items()
    }
    (group,) = groups(tight, (found.since_us, found.until_us), near_us=60_000_000)
    assert {*group.stream_ids} == {"ramp", "yard"}
    assert (group.moves, group.chance < 0.05) == (1, True)


def test_a_change_that_other_cameras_had_too_says_so_and_one_of_its_own_does_not(
    events: tuple[DriftEvent, ...],
) -> None:
    sentences = {
        event.stream_id: [cause.sentence for cause in event.causes if cause.kind == "others"]
        for event in events
        if event.measure == "alpha"
    }
    assert sentences == {
        "yard": ["1 of 4 other cameras moved the same way then: ramp"],
        "ramp": ["1 of 4 other cameras moved the same way then: yard"],
        "tunnel": [],
        "dock": [],
    }


def test_only_moves_of_the_same_way_and_time_on_other_cameras_are_at_once() -> None:
    def move(at_us: int, size: float) -> CameraChange:
        return CameraChange(at_us, at_us - 2, at_us + 2, 0.5, 0.5 + size, "step")

    found = at_once(
        {
            "a": [move(100, 0.3), move(300, 0.3)],
            "b": [move(100, -0.3)],
            "c": [move(108, 0.2), move(110, 0.2)],
            "d": [move(111, 0.3)],
            "e": [],
        },
        near_us=5,
    )
    assert found == {"a": [("c",), ()], "b": [()], "c": [("a", "d"), ("d",)], "d": [("c",)], "e": []}


def test_one_of_many_cameras_that_moved_at_the_same_time_is_chance() -> None:
    def sentences(names: list[str], cameras: int) -> list[str]:
        moves = [an_event(name, "alpha", "step", 100) for name in names]
        return [cause.sentence for cause in shared(moves, cameras, 60_000_000)[0].causes]

    names = [f"camera-{number}" for number in range(6)]
    assert sentences(names[:2], 31) == sentences(names[:1], 4) == []
    (sentence,) = sentences(names, 31)
    assert sentence.endswith("then: camera-1, camera-2, camera-3 and 2 more")


def test_a_camera_that_never_changed_is_in_no_group(found: Collected, cameras: dict[str, Camera]) -> None:
    changes = {name: camera.changes if name == "yard" else () for name, camera in cameras.items()}
    assert groups(changes, (found.since_us, found.until_us), found.bin_us) == ()


def test_classes_come_by_their_number_with_the_shares_of_the_first_and_the_last_quarter(
    cameras: dict[str, Camera],
) -> None:
    mix = {label: shares for label, *shares in cameras["yard"].class_mix}
    assert mix["empty street"][1] == 0.0
    np.testing.assert_allclose(mix["empty street"], [0.3, 0.0, 0.6], atol=0.02)
    assert sum(shares[0] for shares in mix.values()) == pytest.approx(1.0)


def test_models_are_told_by_camera_and_in_all(found: Collected) -> None:
    assert [(model.fingerprint, model.first_us) for model in found.models["dock"]] == [
        (OLD, yard.BEGIN_US),
        (NEW, EVENING_US),
    ]
    assert [model.fingerprint for model in found.models[ALL]] == [OLD, NEW]
    assert len(found.models["gate"]) == 1


def test_what_to_do_next_is_asked_of_all_outputs_and_of_the_last_what_workers_do_now(found: Collected) -> None:
    _, events = analyse_cameras(found, ["old yard", "yard"], smallest=0.1)
    commands = {" ".join(event.next.split()[:2]): event.next for event in events}
    assert commands["adawise drift"].startswith("adawise drift 'old yard' yard --streams ")
    assert commands["adawise pair"] == "adawise pair list yard"


def test_traces_without_predictions_are_analysed_too() -> None:
    with yard.database() as connection:
        connection.execute("DELETE FROM predictions")
        found = collect(connection)
        cameras, _ = analyse_cameras(found, ["yard"], smallest=0.1)
    assert found.rows == 0
    assert np.isnan(found.series["yard"].confidence).all()
    assert np.isnan(cameras[0].confidence)
    assert [len(camera.changes) for camera in cameras] == [1, 1, 1, 1, 0]
    assert cameras[0].class_mix == ()


@pytest.mark.parametrize("since_us", [yard.BEGIN_US, NOON_US + 7 * yard.EVERY_US])
def test_traces_that_say_what_came_of_their_batches_are_believed_and_rows_asked_for_the_others(
    since_us: int, found: Collected, cameras: dict[str, Camera]
) -> None:
    """From then on there are no predictions at all, and the report is the same."""
    with yard.database() as connection:
        yard.measure(connection, since_us)
        connection.execute("DELETE FROM predictions WHERE time >= make_timestamptz($at)", {"at": since_us})
        measured = collect(connection)
        found_again, _ = analyse_cameras(measured, ["yard"], smallest=0.1)
    for name, series in measured.series.items():
        before = found.series[name]
        np.testing.assert_allclose(series.confidence, before.confidence, rtol=1e-6)
        np.testing.assert_allclose(series.endpoints_agree, before.endpoints_agree)
        np.testing.assert_array_equal(series.rejected, before.rejected)
    for camera in found_again:
        by_rows = cameras[camera.stream_id]
        assert camera.class_mix == by_rows.class_mix
        assert camera.rejected == by_rows.rejected
        assert camera.endpoints_agree == pytest.approx(by_rows.endpoints_agree)


def test_no_row_is_read_for_what_traces_say() -> None:
    with yard.database() as connection:
        yard.measure(connection)
        connection.execute("ALTER TABLE predictions RENAME TO kept")
        connection.execute("CREATE VIEW predictions AS FROM kept WHERE error('read: ' || row_id) IS NULL")
        connection.execute(queries.SPANS)
        prepare(connection, 300_000_000)
        assert len(connection.execute(queries.CAMERAS, {"judged": 0}).fetchall()) == len(yard.PLACES)
        assert len(connection.execute(queries.CLASSES).fetchall()) >= len(yard.PLACES)
        with pytest.raises(duckdb.InvalidInputException, match="read: frames"):  # or nothing was proved
            connection.execute(queries.REASONS, {"judged": 0})


def test_where_there_is_no_batch_there_is_no_report() -> None:
    with yard.database() as connection:
        connection.execute("DELETE FROM traces")
        with pytest.raises(SettingsError, match="there is no batch of these cameras in this time"):
            collect(connection)


def test_every_question_can_be_asked_again_as_it_is_written_out(connection: duckdb.DuckDBPyConnection) -> None:
    requested = queries.written_out(300_000_000, 10_000_000, 60_000_000, 300_000_000, 0)
    for name, sql in requested.items():
        assert "$" not in sql, name
        if name == "measures":
            connection.execute(sql)
        elif name not in {"rejects", "calendar"}:  # there are none
            assert connection.execute(sql).fetchone() is not None, name


def test_a_gap_is_a_silence_only_if_it_is_long_for_that_camera(found: Collected) -> None:
    path = found.paths["gate"]
    assert silences(path, found.until_us) == ((), None)
    quiet = path.first_us.copy()
    quiet[300:] += HOUR_US
    moved = type(path)(quiet, quiet, path.batches, path.alpha, path.objective)
    assert silences(moved, int(quiet[-1])) == (((int(quiet[299]), int(quiet[300])),), None)


@pytest.mark.parametrize(
    ("span_us", "most", "width"),
    [(1, 720, "1 second"), (86_400_000_000, 720, "2 minutes"), (30 * 86_400_000_000, 720, "1 hour"),
     (365 * 86_400_000_000, 720, "1 day"), (4 * 365 * 86_400_000_000, 720, "3 days")],
)  # fmt: skip
def test_bins_are_as_wide_as_clocks_have_names_for(span_us: int, most: int, width: str) -> None:
    assert as_long_duration(bin_width_us(span_us, most) / 1e6) == width
    assert -(-span_us // bin_width_us(span_us, most)) <= most
