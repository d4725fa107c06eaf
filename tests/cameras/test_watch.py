"""A camera's thread, what waits for the broker, and a process of many: with connections that do as they are told."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pytest
from kafka import KafkaConsumer, errors
from structlog.testing import capture_logs

from adawise.decode.headers import read_headers
from adawise.errors import BrokerUnavailable
from adawise.publish.outbox import Outbox
from adawise.settings import Settings
from adawise.watch.board import SourceBoard
from adawise.watch.row import CameraState
from adawise.watch.sources import LiveSources, SourceCamera
from adawise.watch.state import StatePolicy, state
from adawise.worker import attempts
from adawise_cameras import child
from adawise_cameras.app import frames_outbox
from adawise_cameras.camera import CameraSpec
from adawise_cameras.clock import Clock
from adawise_cameras.service import Service
from adawise_cameras.watch import Backlog, Connection, FrameRecord, Watch
from adawise_cameras.wire import CameraFrame, ClockOff, Drop, Dropped, End, Ended, Opened, Silence, WireMessage
from tests.brokers import Broker, MakeTopic
from tests.cameras.serving import spec
from tests.deadlines import DEADLINE_S
from tests.publish.dead_letters.test_sink import FakeProducer, Future

T = 1_800_000_000.0
CUT = Ended("the stream ended.", End.FAILED)
OVER = Ended("", End.REACHED)


def frame(number: int, data: bytes = b"jpeg") -> CameraFrame:
    return CameraFrame(data, 1_800_000_000_000_000 + number, Clock.WALL, False)


class Script:
    """Connections that say what is put into them; one that has nothing to say is silent until it is killed."""

    def __init__(self, *connections: Sequence[WireMessage | Exception]) -> None:
        self.connections = [*connections]
        self.open = self.made = 0

    def __call__(self, camera: CameraSpec) -> _Scripted:
        if not self.connections:
            return _Scripted(self, ())
        return _Scripted(self, self.connections.pop(0))


class _Scripted:
    def __init__(self, script: Script, answers: Sequence[WireMessage | Exception]) -> None:
        self._script, self._pending, self._killed = script, [*answers], threading.Event()
        script.open += 1
        script.made += 1

    def next(self, timeout_s: float) -> WireMessage:
        if not self._pending:
            self._killed.wait(DEADLINE_S)
            return Ended("it was killed", End.FAILED)
        found = self._pending.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def kill(self) -> None:
        self._killed.set()

    def close(self) -> None:
        self._script.open -= 1


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits a second between two tries."""
    monkeypatch.setattr(attempts, "_FIRST_S", 1e-4)
    monkeypatch.setattr(attempts, "_LONGEST_S", 1e-3)


def board(*cameras: CameraSpec) -> SourceBoard:
    sources = LiveSources("cameras", T, silent_after_s=60.0, stuck_after_s=600.0)
    for camera in cameras:
        sources.add(T, camera.stream_id, camera.address.shown, camera.frozen_after_s)
    return SourceBoard(sources, lambda: T)


class Taken:
    """A watch at work, and what it puts into its backlog."""

    def __init__(self, script: Callable[[CameraSpec], Connection], camera: CameraSpec) -> None:
        self.came = threading.Semaphore(0)
        self.board = board(camera)
        self.backlog = Backlog(camera.held_bytes, camera.when_behind, self.came.release)
        self.watch = Watch(camera, "frames", self.backlog, self.board, connect=script)

    def take(self, count: int) -> list[FrameRecord]:
        taken: list[FrameRecord] = []
        while len(taken) < count:
            assert self.came.acquire(timeout=DEADLINE_S)
            record = self.backlog.take()
            assert record is not None
            taken.append(record)
        return taken


@contextmanager
def watching(script: Script, camera: CameraSpec | None = None) -> Iterator[Taken]:
    taken = Taken(script, camera or spec("rtsp://camera/1"))
    taken.watch.start()
    try:
        yield taken
    finally:
        taken.watch.stop()
        taken.watch.join()
        assert script.open == 0


def test_frames_are_records_that_say_whose_and_when_and_by_which_clock() -> None:
    with watching(Script([Opened("h264 640x480"), frame(5_000)])) as watched:
        (record,) = watched.take(1)
    assert (record.topic, record.key, record.value) == ("frames", b"yard", b"jpeg")
    assert record.timestamp_ms == 1_800_000_000_005
    headers = read_headers(record.key, record.headers)
    assert (headers.captured_at_us, headers.content_type) == (1_800_000_000_005_000, "image/jpeg")
    assert headers.meta == {"clock": "wall"}
    assert headers.frame_id is not None
    assert headers.frame_id.endswith("-0")


def test_a_connection_that_breaks_stalls_is_refused_or_says_nonsense_is_made_again() -> None:
    refused = Ended("the server refuses the credentials (401).", End.REFUSED)
    script = Script([frame(0), CUT], [Silence()], [refused], [RuntimeError("a fault")], [frame(1)])
    with watching(script) as watched:
        assert [record.taken_us % 1_000 for record in watched.take(2)] == [0, 1]
        with watched.board.locked() as sources:
            camera = sources.cameras["yard"]
            assert (camera.connects, camera.failures) == (5, {"failed": 3, "refused": 1})
            assert state(camera.facts(T), StatePolicy()) == (CameraState.OK, "")
    assert script.made == 5


def test_times_of_a_camera_never_go_back_not_across_connections_either() -> None:
    script = Script([frame(9_000), frame(3_000), CUT], [frame(1_000), frame(10_000)])
    with watching(script) as watched:
        assert [record.taken_us % 1_000_000 for record in watched.take(4)] == [9_000, 9_000, 9_000, 10_000]


def test_one_frame_of_the_future_does_not_hold_the_times_of_those_after_it() -> None:
    """The machine's clock was an hour ahead for a moment."""
    hour_us = 3_600_000_000
    script = Script([frame(0), frame(hour_us), frame(2_000), frame(1_000), frame(3_000)])
    with capture_logs() as logged, watching(script) as watched:
        times = [record.taken_us - 1_800_000_000_000_000 for record in watched.take(5)]
    assert times == [0, hour_us, 2_000, 2_000, 3_000]
    (received,) = [each for each in logged if each["event"] == "camera_clock_set_back"]
    assert (received["camera"], received["seconds"]) == ("yard", 3_600.0)


def test_a_camera_whose_own_clock_is_not_believed_is_reported_once_over_all_connections() -> None:
    off = ClockOff(3_600_000_000)
    script = Script([off, frame(0), CUT], [off, frame(1), ClockOff(0), off, ClockOff(0), frame(2)])
    with capture_logs() as logged, watching(script) as watched:
        watched.take(3)
        with watched.board.locked() as sources:
            assert state(sources.cameras["yard"].facts(T), StatePolicy()) == (CameraState.OK, "")
    received = [
        (each["event"], each.get("seconds_ahead")) for each in logged if each["event"].startswith("camera_clock")
    ]
    assert received == [("camera_clock_refused", 3_600.0), ("camera_clock_accepted", None)]


def test_the_page_says_that_a_cameras_clock_is_not_believed() -> None:
    camera = SourceCamera("yard", "rtsp://camera/1", 300.0, T)
    camera.come(T, T, is_same=False)
    camera.clock_off_s = -7_200.0
    assert state(camera.facts(T), StatePolicy()) == (CameraState.OK, "its clock is 2 h behind, and is not used")


def test_a_video_that_is_over_is_not_read_again() -> None:
    script = Script([frame(0), OVER])
    with watching(script) as watched:
        watched.watch.join()
        assert watched.watch.is_over
    assert script.made == 1


def test_what_a_reader_drops_is_counted() -> None:
    script = Script([Dropped(Drop.DAMAGED), Dropped(Drop.TOO_LARGE), Dropped(Drop.DAMAGED), frame(0)])
    with watching(script) as watched:
        watched.take(1)
        with watched.board.locked() as sources:
            assert sources.cameras["yard"].dropped == {"damaged": 2, "too_large": 1}


def test_a_reader_that_cannot_be_started_is_an_error_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal to all processes of a service ends the one that starts readers, too."""

    class Process:
        def __init__(self, **_: object) -> None: ...

        def start(self) -> None:
            raise EOFError("unexpected EOF")

    monkeypatch.setattr(child._FORKS, "Process", Process)
    with pytest.raises(OSError, match="the process that starts readers ended"):
        child.Child(spec("rtsp://camera/1"))


def record(number: int, size: int = 100, given_up: Callable[[], object] = lambda: None) -> FrameRecord:
    return FrameRecord("frames", "yard", bytes([number]) * size, number, (), given_up)


def test_a_full_backlog_drops_the_oldest_and_one_frame_always_fits() -> None:
    backlog = Backlog(250, "drop", lambda: None)
    dropped = [backlog.put(record(number), lambda: False) for number in range(4)]
    assert dropped == [0, 0, 1, 1]
    assert backlog.put(record(4, size=1_000), lambda: False) == 2
    assert [taken.taken_us for taken in iter(backlog.take, None)] == [4]


def test_a_full_backlog_waits_where_that_is_asked_for_until_there_is_room_or_it_is_told_to_stop() -> None:
    backlog, done = Backlog(250, "wait", lambda: None), queue.Queue[int]()
    stopping = threading.Event()

    def put() -> None:
        for number in range(5):
            done.put(backlog.put(record(number), stopping.is_set))

    thread = threading.Thread(target=put)
    thread.start()
    assert [done.get(timeout=DEADLINE_S) for _ in range(2)] == [0, 0]
    taken = backlog.take()
    assert taken is not None
    assert done.get(timeout=DEADLINE_S) == 0
    stopping.set()
    assert [done.get(timeout=DEADLINE_S) for _ in range(2)] == [0, 0]
    thread.join()
    assert [taken.taken_us for taken in iter(backlog.take, None)] == [1, 2, 3, 4]


# -- many cameras


def outbox(producer: FakeProducer, max_inflight_bytes: int = 1_000_000) -> Outbox[FrameRecord]:
    return Outbox(
        connect=lambda: producer,
        prepare=None,
        where="broker:9092",
        what="a frame",
        meanwhile="Frames wait.",
        max_inflight_bytes=max_inflight_bytes,
        timeout_s=1.0,
        in_order=True,
    )


def cameras(*names: str, **other: Any) -> list[CameraSpec]:
    return [spec(f"rtsp://camera/{name}", stream_id=name, **other) for name in names]


def run(service: Service, done: Callable[[], bool]) -> None:
    """Turns until it is done."""
    give_up = threading.Event()
    timer = threading.Timer(DEADLINE_S, give_up.set)
    timer.start()
    service.run(lambda: done() or give_up.is_set())
    timer.cancel()
    assert not give_up.is_set()


def sent(producer: FakeProducer) -> list[tuple[bytes, int]]:
    return [(received["key"], received["timestamp_ms"]) for _, received, _ in producer.sent]


def test_a_service_sends_the_frames_of_all_cameras_and_ends_with_the_last_video() -> None:
    fields: dict[str, list[WireMessage | Exception]] = {
        "gate": [frame(0), frame(1_000), OVER],
        "yard": [frame(0), OVER],
    }
    producer, shown = FakeProducer(), board()
    service = Service(
        outbox(producer), topic="frames", board=shown, connect=lambda camera: Script(fields[camera.stream_id])(camera)
    )
    service.read(cameras("gate", "yard"))
    service.run(lambda: False)
    service.close()
    assert sorted(sent(producer)) == [(b"gate", T * 1e3), (b"gate", T * 1e3 + 1), (b"yard", T * 1e3)]
    with shown.locked() as sources:
        assert {name: camera.sent for name, camera in sources.cameras.items()} == {"gate": 2, "yard": 1}
    assert producer.closed == 1


def test_a_reload_stops_what_is_gone_starts_what_is_new_and_disturbs_nobody_else() -> None:
    script = Script()
    service = Service(outbox(FakeProducer()), topic="frames", board=(shown := board()), connect=script)
    service.read(cameras("gate", "yard", "shed"))
    changes = service.read([*cameras("gate", "pond"), *cameras("yard", rate=3.0)])
    assert (changes.added, changes.changed, changes.removed) == (("pond",), ("yard",), ("shed",))
    with shown.locked() as sources:
        assert set(sources.cameras) == {"gate", "pond", "yard"}
    service.close()
    assert script.open == 0


def test_a_broker_that_is_away_costs_no_frame_that_fits_and_frames_come_in_their_order() -> None:
    away = errors.KafkaTimeoutError("away")
    producer = FakeProducer(Future(away), Future(away), Future(away))
    shown = board()
    service = Service(
        outbox(producer), topic="frames", board=shown, connect=Script([frame(n * 1_000) for n in range(3)])
    )
    service.read(cameras("yard"))
    run(service, lambda: len(producer.sent) >= 6)
    service.close()
    assert [stamp - T * 1e3 for _, stamp in sent(producer)][-3:] == [0, 1, 2]
    with shown.locked() as sources:
        assert sources.retries["broker"] >= 1
        assert sources.cameras["yard"].dropped == {}


def stopping(away: int, frames: int = 3) -> tuple[FakeProducer, SourceBoard, Service, list[float]]:
    """A service that is closed while the broker refuses so many records, and how long it slept meanwhile."""
    slept: list[float] = []
    producer, shown = FakeProducer(*(Future(errors.KafkaTimeoutError("away")) for _ in range(away))), board()
    service = Service(
        outbox(producer),
        topic="frames",
        board=shown,
        connect=Script([frame(n * 1_000) for n in range(frames)]),
        clock=lambda: sum(slept),
        sleep=slept.append,
    )
    service.read(cameras("yard"))
    give_up = threading.Event()
    while service._waiting < frames and not give_up.wait(0.01):
        pass
    return producer, shown, service, slept


def test_what_the_broker_did_not_take_at_the_end_is_sent_again_in_its_order() -> None:
    producer, shown, service, slept = stopping(away=7)
    service.close()
    assert [stamp - T * 1e3 for _, stamp in sent(producer)][-3:] == [0, 1, 2]
    assert 0.0 < sum(slept) < 10.0
    with shown.locked() as sources:
        assert sources.retries["broker"] == len(slept)
        assert sources.cameras["yard"].sent == 3


def test_a_broker_that_is_away_at_the_end_is_given_up_after_ten_seconds() -> None:
    producer, _, service, slept = stopping(away=1_000)
    with pytest.raises(BrokerUnavailable, match="send a frame to topic 'frames'"):
        service.close()
    assert sum(slept) == 10.0
    assert producer.closed == 1


def test_a_frame_that_the_topic_does_not_take_is_given_up_and_counted_and_the_next_one_is_sent() -> None:
    producer, shown = FakeProducer(Future(errors.MessageSizeTooLargeError("10 bytes at most"))), board()
    service = Service(outbox(producer), topic="frames", board=shown, connect=Script([frame(0), frame(1_000)]))
    service.read(cameras("yard"))
    run(service, lambda: len(producer.sent) == 2)
    service.close()
    with shown.locked() as sources:
        assert sources.cameras["yard"].dropped == {"too_large": 1}


def test_what_a_camera_that_is_removed_had_left_is_sent() -> None:
    producer = FakeProducer()
    service = Service(outbox(producer), topic="frames", board=board(), connect=(script := Script([frame(0), frame(1)])))
    service.read(cameras("yard"))
    give_up = threading.Event()
    while service._waiting < 2 and not give_up.wait(0.01):
        pass
    service.read(cameras("gate"))
    service.close()
    assert script.open == 0
    assert [key for key, _ in sent(producer)] == [b"yard", b"yard"]


def test_a_camera_that_is_changed_goes_on_behind_what_it_had_left_and_its_times_do_not_go_back() -> None:
    producer, script = FakeProducer(), Script([frame(9_000), frame(10_000)], [frame(5_000), frame(11_000)])
    service = Service(outbox(producer), topic="frames", board=board(), connect=script)
    give_up = threading.Event()
    for waiting, changed in ((2, cameras("yard")), (4, cameras("yard", rate=3.0))):
        service.read(changed)
        while service._waiting < waiting and not give_up.wait(0.01):
            pass
    run(service, lambda: len(producer.sent) == 4)
    service.close()
    assert [stamp - T * 1e3 for _, stamp in sent(producer)] == [9, 10, 10, 11]


@pytest.mark.needs("message_limits")
def test_a_real_topic_that_takes_no_large_message_gets_the_small_frames_with_their_times(
    broker: Broker, topic: MakeTopic
) -> None:
    name = topic(configs={"max.message.bytes": "20000"})
    now_us = time.time_ns() // 1_000_000 * 1_000  # brokers refuse what is of the future
    sizes = (100, 50_000, 100)
    received = [CameraFrame(b"x" * size, now_us + 1_000 * n, Clock.WALL, False) for n, size in enumerate(sizes)]
    settings = Settings.model_validate({"kafka": {"bootstrap_servers": broker.bootstrap_servers, "topic": name}})
    service = Service(frames_outbox(settings), topic=name, board=(shown := board()), connect=Script([*received, OVER]))
    service.read(cameras("yard"))
    service.run(lambda: False)
    service.close()
    with shown.locked() as sources:
        assert sources.cameras["yard"].dropped == {"too_large": 1}
    consumer = KafkaConsumer(
        name, bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest", consumer_timeout_ms=1_000
    )
    with closing(consumer):
        assert [record.timestamp - now_us // 1_000 for record in consumer] == [0, 2]
