"""What is known of cameras that are read: their states, counts and metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from adawise.errors import BrokerUnavailable
from adawise.watch.counts import Distribution
from adawise.watch.metrics import CAMERA_METRICS, METRICS, SourceScrape
from adawise.watch.row import CameraState
from adawise.watch.sources import LiveSources
from adawise.worker.events import Phase

T = 1_800_000_000.0
SHOWN = "rtsp://camera/1"


def reading(*cameras: str) -> LiveSources:
    sources = LiveSources("cameras", T, silent_after_s=60.0, stuck_after_s=600.0, keeps_pictures=True)
    for name in cameras or ("yard",):
        sources.add(T, name, SHOWN, frozen_after_s=30.0)
        sources.connect(T, name)
        sources.open(T, name, "h264 640x480")
    return sources


def come(sources: LiveSources, times: Iterable[float], *, is_same: bool = False) -> None:
    for at_s in times:
        sources.now_s = T + at_s
        sources.come(T + at_s, "yard", T + at_s - 0.25, b"jpeg", is_same)
        sources.send(T + at_s, "yard", 4)


def state(sources: LiveSources, at_s: float) -> tuple[CameraState, str]:
    sources.now_s = T + at_s
    (row,) = sources.view().rows
    assert sources.states()[row.state] == 1
    return row.state, row.why


def test_a_camera_is_ok_while_it_sends_and_silent_when_it_does_not() -> None:
    sources = reading()
    assert state(sources, 3) == (CameraState.SILENT, "no image yet")
    come(sources, range(4, 60))
    assert state(sources, 60) == (CameraState.OK, "")
    assert sources.view().rows[0].images_per_s == pytest.approx(1.0, abs=0.1)
    assert state(sources, 119) == (CameraState.OK, "")
    assert state(sources, 200) == (CameraState.SILENT, "no image for 2 min")


def test_a_camera_of_a_frame_a_minute_is_not_silent_between_two() -> None:
    sources = reading()
    come(sources, range(0, 600, 60))
    assert state(sources, 540 + 599) == (CameraState.OK, "")
    assert state(sources, 540 + 601)[0] == CameraState.SILENT


def test_a_camera_that_fails_says_why_until_its_next_frame() -> None:
    sources = reading()
    come(sources, [1])
    sources.fail(T + 2, "yard", "the connection was refused.", False)
    assert state(sources, 3) == (CameraState.FAILING, "the connection was refused.")
    sources.connect(T + 4, "yard")
    sources.open(T + 5, "yard", "h264 640x480")
    assert state(sources, 5)[0] == CameraState.FAILING
    come(sources, [6])
    assert state(sources, 6) == (CameraState.OK, "")


def test_one_picture_for_long_is_frozen_until_another_comes_or_it_is_connected_to_again() -> None:
    sources = reading()
    come(sources, [0])
    come(sources, range(1, 30), is_same=True)
    assert state(sources, 29) == (CameraState.OK, "")
    come(sources, range(30, 40), is_same=True)
    assert state(sources, 40) == (CameraState.FROZEN, "the same picture for 39 s")
    come(sources, [41])
    assert state(sources, 41) == (CameraState.OK, "")
    come(sources, range(42, 90), is_same=True)
    sources.open(T + 90, "yard", "h264 640x480")
    assert state(sources, 90) == (CameraState.OK, "")


@pytest.mark.parametrize("ending", ["fails", "is silent", "is over"])
def test_a_camera_that_is_gone_is_not_frozen_any_more(ending: str) -> None:
    sources = reading()
    come(sources, [0])
    come(sources, range(1, 90), is_same=True)
    assert frozen_s(sources, 89) == 88.0
    if ending == "fails":
        sources.fail(T + 90, "yard", "the connection was refused.", False)
    elif ending == "is over":
        sources.end(T + 90, "yard")
    assert frozen_s(sources, 1_000) == 0.0


def frozen_s(sources: LiveSources, at_s: float) -> float:
    sources.now_s = T + at_s
    return values(sources)["adawise_camera_frozen_seconds"][("yard",)]


def test_a_tenth_of_its_frames_dropped_is_trouble_for_five_minutes() -> None:
    sources = reading()
    come(sources, range(100))
    sources.drop(T + 99, "yard", "damaged", 10)
    assert state(sources, 100)[0] == CameraState.OK
    sources.drop(T + 100, "yard", "behind", 5)
    assert state(sources, 101) == (CameraState.REJECTED, "15 of 115 images rejected in 5 min: damaged")
    come(sources, range(102, 500))
    assert state(sources, 500) == (CameraState.OK, "")


def test_a_video_that_is_over_is_said_to_be() -> None:
    sources = reading()
    come(sources, [1])
    sources.end(T + 2, "yard")
    assert state(sources, 2) == (CameraState.SILENT, "its video is over")


def test_ready_is_said_once_the_loop_turns_and_stays_while_the_broker_is_away() -> None:
    sources = reading()
    health = sources.health
    assert not health.ready(T).ok
    assert "looks up the topic" in health.ready(T).reasons[0]
    sources.enter(T, Phase.WORKING)
    sources.turn(T, 0)
    assert (health.started(T).ok, health.ready(T).ok) == (True, True)
    sources.retry(T + 1, BrokerUnavailable("nobody answers"), "sending")
    assert health.ready(T + 2).ok
    sources.now_s = T + 2
    assert sources.view().notices == ["the broker has not answered for 1 s: nobody answers"]
    sources.turn(T + 90, 0)
    sources.now_s = T + 90
    assert sources.view().notices == ["the broker has not answered for 89 s: nobody answers"]
    sources.retries_ended(T + 90, "sending")
    assert sources.view().notices == []
    assert not health.alive(T + 700).ok
    sources.enter(T + 3, Phase.STOPPING)
    assert "sends its remaining frames" in health.ready(T + 3).reasons[0]


Values = dict[str, dict[tuple[str, ...], float]]


def values(sources: LiveSources, viewers: int = 0) -> Values:
    found: Values = {}
    for spec in CAMERA_METRICS:
        samples = dict(spec.series.samples(SourceScrape(sources, "1.2.3", viewers)))
        assert all(len(labels) == len(spec.series.labels) for labels in samples)
        found[spec.name] = {labels: value for labels, value in samples.items() if not isinstance(value, Distribution)}
    return found


def test_every_metric_moves() -> None:
    sources = reading("yard", "gate")
    first = values(sources)
    come(sources, [1])
    come(sources, range(2, 60), is_same=True)
    sources.drop(T, "gate", "behind", 3)
    sources.fail(T, "gate", "the connection was refused.", True)
    sources.retry(T, BrokerUnavailable("away"), "sending")
    sources.enter(T, Phase.WORKING)
    sources.turn(T + 50, 7)
    sources.connect(T, "gate")
    now = values(sources, viewers=1)
    assert {name for name in now if now[name] == first[name]} == {"adawise_build_info"}
    assert now["adawise_camera_up"] == {("yard",): 1.0, ("gate",): 0.0}
    assert now["adawise_camera_frames_total"] == {("yard",): 59, ("gate",): 0}
    assert now["adawise_camera_dropped_total"] == {
        (camera, reason): 3 if (camera, reason) == ("gate", "behind") else 0
        for camera in ("yard", "gate")
        for reason in ("behind", "damaged", "too_large")
    }
    assert now["adawise_camera_failures_total"]["gate", "refused"] == 1
    assert now["adawise_camera_delay_seconds"] == {("yard",): pytest.approx(0.25)}


def test_series_go_with_their_camera_and_counts_go_on_when_it_is_changed() -> None:
    sources = reading("yard", "gate")
    come(sources, range(5))
    sources.remove(T + 6, "gate")
    sources.add(T + 6, "yard", "rtsp://camera/2", frozen_after_s=30.0)
    sources.send(T + 6, "gate", 4)  # what it had left
    now = values(sources)
    for spec in CAMERA_METRICS:
        if "camera" in spec.series.labels:
            assert {labels[0] for labels in now[spec.name]} <= {"yard"}, spec.name
    assert now["adawise_camera_frames_total"] == {("yard",): 5}


def test_names_follow_prometheus_and_what_a_worker_has_too_means_the_same_kind() -> None:
    of_workers = {spec.name: spec for spec in METRICS}
    assert len({spec.name for spec in CAMERA_METRICS}) == len(CAMERA_METRICS)
    for spec in CAMERA_METRICS:
        assert re.fullmatch(r"adawise_[a-z_]+", spec.name)
        assert spec.name.endswith("_total") == (spec.kind == "counter"), spec.name
        assert spec.meaning.endswith("."), spec.name
        assert spec.remedy.endswith("."), spec.name
        if (theirs := of_workers.get(spec.name)) is not None:
            assert (spec.kind, spec.series.labels) == (theirs.kind, theirs.series.labels)


def test_the_last_picture_of_a_camera_is_kept_where_that_is_asked_for() -> None:
    sources = reading()
    come(sources, [1])
    (row,) = sources.view().rows
    assert (sources.picture(row.key), row.picture) == (b"jpeg", 1)
    assert sources.picture("nobody") is None


def test_a_cameras_own_page_says_how_its_stream_is_and_what_was_dropped() -> None:
    sources = reading()
    sources.connect(T, "yard")
    sources.open(T, "yard", "h264 640x480")
    come(sources, range(1, 4))
    sources.drop(T + 3, "yard", "behind", 2)
    sources.now_s = T + 5
    (row,) = sources.view().rows
    view = sources.camera(row.key)
    assert view is not None
    assert view.row == row
    facts = {name: value for _, pairs in view.facts for name, value in pairs}
    assert facts["connected"] == "yes, h264 640x480"
    assert facts["address"] == row.partition
    assert facts["dropped"] == "2: behind 2"
    assert facts["failed"] == "0"
    assert facts["last frame"].startswith("2 s ago, ")
    assert (view.conditions, view.hints) == ((), ())
    assert sources.camera("nobody") is None
