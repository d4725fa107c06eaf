"""A real RTSP server: read, timed, refused, frozen, cut off and brought back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from adawise.produce.address import with_credentials
from adawise_cameras.camera import CameraSpec
from adawise_cameras.child import Child
from adawise_cameras.clock import Clock
from adawise_cameras.watch import Watch
from adawise_cameras.wire import CameraFrame, End, Ended, Opened, WireMessage
from tests.cameras.serving import RtspServer, h264, mjpeg, rtsp, spec
from tests.cameras.test_watch import Taken
from tests.deadlines import DEADLINE_S

PASSWORD = "pass/w@rd ü"


@pytest.fixture(scope="module")
def server() -> Iterator[RtspServer]:
    streams: dict[str, str | tuple[str, float]] = {
        "/ball": h264(),
        "/still": h264("gamut"),
        "/jpeg": mjpeg(),
        "/slow": (h264(), 2.0),
    }
    with rtsp(streams) as running:
        yield running


@pytest.fixture(scope="module")
def closed() -> Iterator[RtspServer]:
    """One that wants a password."""
    with rtsp({"/ball": h264()}, ("viewer", PASSWORD)) as running:
        yield running


def read(camera: CameraSpec, most: int) -> list[WireMessage]:
    """What it tells until its end or so many frames."""
    child, messages = Child(camera), list[WireMessage]()
    try:
        while sum(isinstance(each, CameraFrame) for each in messages) < most:
            messages.append(child.next(DEADLINE_S))
            if isinstance(messages[-1], Ended):
                break
    finally:
        child.close()
    return messages


def frames(messages: list[WireMessage]) -> list[CameraFrame]:
    return [each for each in messages if isinstance(each, CameraFrame)]


@pytest.mark.parametrize("transport", ["tcp", pytest.param("udp", marks=pytest.mark.soak)])
def test_frames_come_at_the_rate_that_is_asked_for_whatever_the_transport(server: RtspServer, transport: str) -> None:
    messages = read(spec(server.url("/ball"), rate=5.0, transport=transport, longest=320), 12)
    assert messages[0] == Opened("h264 640x480")
    times = [frame.taken_us / 1e6 for frame in frames(messages)]
    assert times[-1] - times[-5] == pytest.approx(4 / 5, abs=0.15)  # at first some may come in a bunch
    assert not any(frame.is_same for frame in frames(messages))


@pytest.mark.soak
def test_a_frame_has_the_cameras_wall_clock_once_that_was_told(server: RtspServer) -> None:
    found = frames(read(spec(server.url("/ball"), rate=4.0), 28))
    assert {Clock.STREAM, Clock.WALL} <= {frame.clock for frame in found}
    assert found[-1].clock == Clock.WALL
    assert abs(time.time() - found[-1].taken_us / 1e6) < 5.0


@pytest.mark.soak
def test_jpegs_in_rtsp_are_passed_on_and_a_stream_that_begins_late_is_waited_for(server: RtspServer) -> None:
    assert read(spec(server.url("/jpeg")), 2)[0] == Opened("mjpeg 640x480")
    assert len(frames(read(spec(server.url("/slow")), 1))) == 1


def test_a_picture_that_stands_still_is_told_to_although_it_is_coded_anew(server: RtspServer) -> None:
    found = frames(read(spec(server.url("/still"), rate=8.0), 30))  # some keyframes among them
    assert [frame.is_same for frame in found[10:]] == [True] * 20


def test_credentials_of_whatever_letters_open_a_stream_and_wrong_ones_are_refused(closed: RtspServer) -> None:
    right, wrong = (with_credentials(closed.url("/ball"), "viewer", word) for word in (PASSWORD, "another-word"))
    assert len(frames(read(spec(right), 1))) == 1
    for url in (wrong, closed.url("/ball")):
        (end,) = read(spec(url), 1)
        assert isinstance(end, Ended)
        assert (end.end, "refuses the credentials (401)" in end.why) == (End.REFUSED, True)
    (end,) = read(spec(closed.url("/none")), 1)
    assert isinstance(end, Ended)
    assert "(404)" in end.why


def test_a_server_that_is_killed_and_started_again_is_read_on_and_its_neighbour_never_stops(server: RtspServer) -> None:
    with rtsp({"/ball": h264()}) as dying:
        ours = [
            Taken(Child, spec(dying.url("/ball"), rate=5.0, timeout_s=5.0)),
            Taken(Child, spec(server.url("/ball"), rate=5.0, stream_id="gate")),
        ]
        for taken in ours:
            taken.watch.start()
        try:
            before = ours[0].take(3)
            dying.kill()
            neighbours = len(ours[1].take(5))
            dying.start()
            after = ours[0].take(8)
        finally:
            for taken in ours:
                taken.watch.stop()
            for taken in ours:
                taken.watch.join()
    assert neighbours == 5
    times = [record.taken_us for record in (*before, *after)]
    assert times == sorted(times)
    with ours[0].board.locked() as sources:
        assert sources.cameras["yard"].connects >= 2
    with ours[1].board.locked() as sources:
        assert (sources.cameras["gate"].connects, sources.cameras["gate"].failures.total()) == (1, 0)


@pytest.mark.soak
def test_a_server_that_stops_without_a_word_is_noticed_by_the_clock(server: RtspServer) -> None:
    with rtsp({"/ball": h264()}) as stopped:
        taken = Taken(Child, spec(stopped.url("/ball"), rate=5.0, timeout_s=2.0))
        taken.watch.start()
        try:
            taken.take(2)
            stopped.pause()
            wait_until(taken.watch, taken, failures=1)
            stopped.resume()
            taken.take(3)
        finally:
            taken.watch.stop()
            taken.watch.join()


def wait_until(watch: Watch, taken: Taken, *, failures: int) -> None:
    give_up, never = time.monotonic() + DEADLINE_S, threading.Event()
    while True:
        with taken.board.locked() as sources:
            if sources.cameras[watch.camera.stream_id].failures.total() >= failures:
                return
        assert time.monotonic() < give_up
        never.wait(0.05)
