"""The thread of one camera: it connects, takes frames, and reconnects when the stream breaks, stalls or is refused.

Its frames wait in a bounded backlog for the broker: a slow broker costs frames, or time.

A failure here affects this camera alone. A camera that was well for a minute is tried again within a second when it
breaks. One that was not is tried less and less often, but never given up: its fault may be mended.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

import structlog

from adawise.decode.headers import written_headers
from adawise.watch.board import SourceBoard
from adawise.watch.sources import LiveSources
from adawise.worker.attempts import Backoff
from adawise_cameras.camera import CameraSpec
from adawise_cameras.clock import WRONG_US
from adawise_cameras.wire import CameraFrame, ClockOff, Drop, Dropped, End, Ended, Opened, Silence, WireMessage

_log = structlog.get_logger("cameras")

HEALTHY_S = 60.0
CAUSE_WITHIN_S = 2.0
"""The time beyond `timeout_s` that a reader gets: if it notices the silence itself, it gives the cause."""

_POLL_S = 0.5
_LEAST_SPREAD = 0.5
_REPEAT_S = 600.0
_DROPS_LOGGED_S = 60.0
_CLOCK_HEADER = "clock"  # sent as `meta-clock`
_DROPPED = {Drop.DAMAGED: "damaged", Drop.TOO_LARGE: "too_large"}
BEHIND = "behind"
"""The reason of a frame that was dropped because the broker did not take it in time."""


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """A frame as a record of the topic. Implements `publish.outbox.Outgoing`."""

    topic: str
    stream_id: str
    value: bytes
    taken_us: int
    headers: tuple[tuple[str, bytes], ...]
    given_up: Callable[[], object]

    @property
    def key(self) -> bytes:
        """The camera: its frames share a partition."""
        return self.stream_id.encode()

    @property
    def timestamp_ms(self) -> int:
        """Kafka's timestamp, by which the worker closes batches."""
        return self.taken_us // 1_000

    @property
    def size_bytes(self) -> int:
        """The bytes that it takes in memory."""
        return len(self.value) + sum(len(name) + len(value) for name, value in self.headers)

    def smaller(self) -> Sequence[FrameRecord] | None:
        """Report the frame as given up and return None: the topic does not take its size, but the next may fit."""
        self.given_up()
        return None


class Backlog:
    """A queue of frames, oldest first. One thread puts in, another takes out.

    Args:
        most_bytes: of the frames; one frame always fits.
        when_full: "drop" drops the oldest frames; "wait" makes `put` wait.
        came: called when there is something to take.
        former: the backlog that this one takes over; no thread puts in there any more.
    """

    def __init__(
        self,
        most_bytes: int,
        when_full: Literal["drop", "wait"],
        came: Callable[[], object],
        former: Backlog | None = None,
    ) -> None:
        self._most_bytes, self._waits, self._came = most_bytes, when_full == "wait", came
        self._records: deque[FrameRecord] = former._records if former is not None else deque()
        self._bytes: int = former._bytes if former is not None else 0
        self._changed = threading.Condition()

    def put(self, record: FrameRecord, should_stop: Callable[[], bool]) -> int:
        """Put a frame in; return how many others were dropped for it.

        Where it waits for room, it stops waiting once `should_stop` returns True.
        """
        dropped = 0
        with self._changed:
            while self._records and self._bytes + record.size_bytes > self._most_bytes:
                if self._waits:
                    if should_stop():
                        break
                    self._changed.wait(_POLL_S)
                    continue
                self._bytes -= self._records.popleft().size_bytes
                dropped += 1
            self._records.append(record)
            self._bytes += record.size_bytes
        self._came()
        return dropped

    def take(self) -> FrameRecord | None:
        """Return the oldest frame; None if there is none."""
        with self._changed:
            if not self._records:
                return None
            record = self._records.popleft()
            self._bytes -= record.size_bytes
            self._changed.notify()
            return record

    def put_back(self, record: FrameRecord) -> None:
        """Put a frame back at the front, as it could not be sent."""
        with self._changed:
            self._records.appendleft(record)
            self._bytes += record.size_bytes

    def __len__(self) -> int:
        """Return the number of frames that wait."""
        return len(self._records)


class Connection(Protocol):
    """The interface of `adawise_cameras.child.Child`."""

    def next(self, timeout_s: float) -> WireMessage:
        """Return the next report; raise `Silence`."""

    def kill(self) -> None:
        """Make `next` return soon; any thread may call it."""

    def close(self) -> None:
        """Close the connection."""


def no_process(error: OSError) -> str:
    """Return why a camera is not read, if no process could be started for it."""
    return (
        f"no process could be started for it: {error.strerror}. If this stays, raise the limits of processes and files."
    )


class Watch:
    """A thread that reads one camera into its backlog, from `start` to `stop`.

    Args:
        camera: the camera to read.
        topic: the topic of its frames.
        backlog: the queue of its frames.
        board: gets the events.
        connect: opens a connection.
        former: the watch that read the camera until now, and has ended: times go on from its last.
        clock: monotonic seconds, for waits.
    """

    def __init__(
        self,
        camera: CameraSpec,
        topic: str,
        backlog: Backlog,
        board: SourceBoard,
        *,
        connect: Callable[[CameraSpec], Connection],
        former: Watch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.camera, self.backlog = camera, backlog
        self._topic, self._board, self._connect, self._clock = topic, board, connect, clock
        self._stopping = threading.Event()
        self._open: Connection | None = None
        self._lock = threading.Lock()  # between `stop` and a connection that is just being made
        self._backoff = Backoff(lambda: random.uniform(_LEAST_SPREAD, 1.0))
        self._last_us: int = former._last_us if former is not None else 0
        self._last_error, self._logged_s = "", 0.0
        self._dropped, self._dropped_logged_s = 0, -_DROPS_LOGGED_S  # frames that are not in the log yet
        self._is_frozen = False
        self._is_clock_off, self._clock_logged_s = False, -_REPEAT_S
        self._thread = threading.Thread(target=self._run, name=f"camera {camera.stream_id}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Make the thread end soon, and return at once."""
        self._stopping.set()
        with self._lock:
            if self._open is not None:
                self._open.kill()

    def join(self) -> None:
        """Wait for the thread's end, after `stop`."""
        self._thread.join()

    @property
    def is_over(self) -> bool:
        """True once the thread has ended, as at the end of a video."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._is_frozen = False
            try:
                ended = self._connection()
            except Exception:  # noqa: BLE001 - a fault of ours costs this connection, and no other camera
                _log.exception("camera_watch_failed", camera=self.camera.stream_id)
                ended = Ended("a bug in this program; see the log, and report it.", End.FAILED)
            if self._stopping.is_set():
                return
            if ended.end == End.REACHED:
                self._board.apply(LiveSources.end, self.camera.stream_id)
                _log.info("video_ended", camera=self.camera.stream_id)
                return
            self._failed(ended)

    def _failed(self, ended: Ended) -> None:
        now_s, camera = self._clock(), self.camera
        wait_s = self._backoff.failed(now_s)
        self._board.apply(LiveSources.fail, camera.stream_id, ended.why, ended.end == End.REFUSED)
        if ended.why != self._last_error or now_s - self._logged_s >= _REPEAT_S:
            self._last_error, self._logged_s = ended.why, now_s
            _log.warning(
                "camera_failed",
                camera=camera.stream_id,
                source=camera.address.shown,
                why=ended.why,
                refused=ended.end == End.REFUSED,
                wait_s=round(wait_s, 1),
            )
        self._stopping.wait(wait_s)

    def _connection(self) -> Ended:
        """Take the frames of one connection until it ends; return how it ended."""
        camera = self.camera
        self._board.apply(LiveSources.connect, camera.stream_id)
        try:
            connection = self._connect(camera)
        except OSError as error:
            return Ended(no_process(error), End.FAILED)
        with self._lock:
            self._open = connection
        try:
            if self._stopping.is_set():
                return Ended("", End.FAILED)
            return self._taken(connection)
        except Silence:
            return Ended(f"no frame for {camera.timeout_s:g} s (timeout_s). Check that the camera is on.", End.FAILED)
        finally:
            with self._lock:
                self._open = None
            connection.close()

    def _taken(self, connection: Connection) -> Ended:
        camera, number = self.camera, 0
        began_s = self._clock()
        session = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        while True:
            message = connection.next(camera.timeout_s + CAUSE_WITHIN_S)
            match message:
                case Ended():
                    return message
                case Opened(what):
                    self._board.apply(LiveSources.open, camera.stream_id, what)
                    self._last_error = ""
                    _log.info("camera_connected", camera=camera.stream_id, source=camera.address.shown, what=what)
                case Dropped(reason):
                    self._board.apply(LiveSources.drop, camera.stream_id, _DROPPED[reason])
                    self._log_dropped(1, _DROPPED[reason])
                case ClockOff(off_us):
                    self._log_clock(off_us)
                case CameraFrame():
                    self._take(message, f"{session}-{number}")
                    number += 1
            if self._clock() - began_s >= HEALTHY_S:
                self._backoff.succeeded()

    def _take(self, frame: CameraFrame, frame_id: str) -> None:
        camera = self.camera
        taken_us = self._time(frame.taken_us)
        self._board.apply(LiveSources.come, camera.stream_id, taken_us / 1e6, frame.data, frame.is_same)
        self._log_frozen()
        headers = written_headers("image/jpeg", taken_us, frame_id, meta={_CLOCK_HEADER: frame.clock})
        record = FrameRecord(
            topic=self._topic,
            stream_id=camera.stream_id,
            value=frame.data,
            taken_us=taken_us,
            headers=tuple(headers),
            given_up=self._given_up,
        )
        if dropped := self.backlog.put(record, self._stopping.is_set):
            self._board.apply(LiveSources.drop, camera.stream_id, BEHIND, dropped)
            self._log_dropped(dropped, BEHIND)

    def _time(self, taken_us: int) -> int:
        """Return the time to send a frame with: never before the last frame's, as batches are closed by it.

        After a step back by more than a minute, the last time was of a wrong clock. It must not hold all later times
        for as long as it was ahead.
        """
        back_us = self._last_us - taken_us
        if back_us > WRONG_US:
            _log.warning(
                "camera_clock_set_back",
                camera=self.camera.stream_id,
                seconds=round(back_us / 1e6, 1),
                note="times of its frames continue from the earlier time",
            )
            self._last_us = taken_us
        self._last_us = max(taken_us, self._last_us)
        return self._last_us

    def _log_clock(self, off_us: int) -> None:
        """Show whether the camera's clock is used, and log each change, but not a relapse within ten minutes."""
        camera, is_off, now_s = self.camera.stream_id, off_us != 0, self._clock()
        self._board.apply(LiveSources.misdate, camera, off_us / 1e6)
        if is_off == self._is_clock_off or now_s - self._clock_logged_s < _REPEAT_S * is_off:
            return
        self._is_clock_off = is_off
        if is_off:
            self._clock_logged_s = now_s
            _log.warning(
                "camera_clock_refused",
                camera=camera,
                seconds_ahead=round(off_us / 1e6, 1),
                note="its frames get the time of their position in the stream, by this machine's clock",
            )
        else:
            _log.info("camera_clock_accepted", camera=camera)

    def _given_up(self) -> None:
        """Count a frame that the topic does not take; called by the thread that sends."""
        reason = _DROPPED[Drop.TOO_LARGE]
        self._board.apply(LiveSources.drop, self.camera.stream_id, reason)
        self._log_dropped(1, reason)

    def _log_frozen(self) -> None:
        with self._board.locked() as sources:
            frozen_s = sources.cameras[self.camera.stream_id].frozen_s(sources.now_s, sources.policy)
        if frozen_s and not self._is_frozen:
            _log.warning("picture_repeated", camera=self.camera.stream_id, seconds=round(frozen_s, 1))
        elif self._is_frozen and not frozen_s:
            _log.info("picture_changed", camera=self.camera.stream_id)
        self._is_frozen = bool(frozen_s)

    def _log_dropped(self, count: int, reason: str) -> None:
        """Log dropped frames, once a minute at most."""
        now_s = self._clock()
        self._dropped += count
        if now_s - self._dropped_logged_s >= _DROPS_LOGGED_S:
            _log.warning("camera_frames_dropped", camera=self.camera.stream_id, frames=self._dropped, reason=reason)
            self._dropped, self._dropped_logged_s = 0, now_s
