"""The service of `adawise cameras`: many cameras into one topic, at least once, in bounded memory, until it is stopped.

One thread per camera reads (`watch`), and this one sends. Frames of a camera wait in a backlog of their own until the
broker has room; they are sent one from each camera in turn, so that no camera can take another's place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from adawise.errors import AdawiseError, RetryableError
from adawise.publish.outbox import Outbox
from adawise.watch.board import SourceBoard
from adawise.watch.sources import LiveSources
from adawise.worker.attempts import Backoff
from adawise_cameras.camera import CameraSpec
from adawise_cameras.watch import Backlog, Connection, FrameRecord, Watch

_log = structlog.get_logger("cameras")

_TURN_S = 0.2
_LAST_S = 10.0  # for what is left at the end, in total
_AGAIN_S = 0.5  # between two attempts at that
_SENDING = "sending"  # the name of what fails while the broker takes nothing


@dataclass(frozen=True, slots=True)
class Changes:
    """The difference that another list of cameras made."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


class Service:
    """A service that reads cameras and sends their frames.

    Args:
        outbox: to the topic; closed at the end.
        topic: its name.
        board: gets the events.
        connect: opens a connection to a camera.
        clock: monotonic seconds, for waits.
        sleep: waits that many seconds by `clock`.
    """

    def __init__(
        self,
        outbox: Outbox[FrameRecord],
        *,
        topic: str,
        board: SourceBoard,
        connect: Callable[[CameraSpec], Connection],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._outbox, self._topic, self._board, self._connect = outbox, topic, board, connect
        self._clock, self._sleep = clock, sleep
        self._watches: dict[str, Watch] = {}
        self._left: list[Backlog] = []  # of cameras that are no longer read
        self._came = threading.Event()
        self._backoff = Backoff()
        self._failed_at: int | None = None  # records acknowledged when sending failed last

    def read(self, cameras: Sequence[CameraSpec]) -> Changes:
        """Read these cameras from now on; connections of unchanged ones are not disturbed."""
        wanted = {camera.stream_id: camera for camera in cameras}
        kept = {name: watch for name, watch in self._watches.items() if wanted.get(name) == watch.camera}
        gone = {name: watch for name, watch in self._watches.items() if name not in kept}
        _end(gone.values())
        self._left += [watch.backlog for name, watch in gone.items() if name not in wanted]
        for name in gone:
            if name not in wanted:
                self._board.apply(LiveSources.remove, name)
        for name, camera in wanted.items():
            if name not in kept:
                self._board.apply(LiveSources.add, name, camera.address.shown, camera.frozen_after_s)
                former = gone.get(name)
                left = None if former is None else former.backlog
                kept[name] = Watch(
                    camera,
                    self._topic,
                    Backlog(camera.held_bytes, camera.when_behind, self._came.set, left),
                    self._board,
                    connect=self._connect,
                    former=former,
                    clock=self._clock,
                )
                kept[name].start()
        changes = Changes(
            added=tuple(name for name in wanted if name not in self._watches),
            changed=tuple(name for name in gone if name in wanted),
            removed=tuple(name for name in gone if name not in wanted),
        )
        self._watches = kept
        return changes

    def run(self, should_stop: Callable[[], bool], each_turn: Callable[[], object] = lambda: None) -> None:
        """Send until `should_stop`, or until all cameras are videos that are over; `each_turn` may call `read`."""
        while not should_stop():
            self._came.wait(_TURN_S)
            self._came.clear()
            each_turn()
            over = all(watch.is_over for watch in self._watches.values())
            self._send_some()
            if over and not self._waiting:
                return

    def close(self) -> None:
        """End all connections and send what they have left; return when the broker has it.

        What fails is sent again for up to 10 s, as a broker that was away may be back.

        Raises:
            BrokerUnavailable: the time is over; what was not acknowledged is lost with this process.
        """
        _end(self._watches.values())
        self._outbox.hurry(_LAST_S)
        until_s = self._clock() + _LAST_S
        try:
            while not self._is_all_sent(until_s):
                self._sleep(_AGAIN_S)
        finally:
            self._outbox.close()

    def _is_all_sent(self, until_s: float) -> bool:
        """Send the rest; return False if the broker did not take it, and it must be tried again."""
        try:
            for backlog in self._backlogs:
                while (record := backlog.take()) is not None:
                    self._send(backlog, record, wait=True)
            self._outbox.flush()
        except RetryableError as error:
            if self._clock() + _AGAIN_S > until_s:
                raise
            self._failed(error, _AGAIN_S)
            return False
        return True

    @property
    def _backlogs(self) -> list[Backlog]:
        return [*self._left, *(watch.backlog for watch in self._watches.values())]

    @property
    def _waiting(self) -> int:
        return sum(map(len, self._backlogs))

    def _send_some(self) -> None:
        """Send what there is room for, a frame of each camera in turn."""
        now_s = self._clock()
        if self._backoff.due(now_s):
            try:
                self._outbox.settle()
                while self._send_one_of_each():
                    pass
            except RetryableError as error:
                self._failed(error, self._backoff.failed(now_s))
            else:
                self._backoff.succeeded()
                self._note_acknowledged()
        self._board.apply(LiveSources.turn, self._waiting)

    def _send_one_of_each(self) -> bool:
        """Return True if there were frames, and room for them."""
        any_sent = False
        for backlog in self._backlogs:
            if not self._outbox.has_room:
                return False
            if (record := backlog.take()) is None:
                continue
            self._send(backlog, record, wait=False)
            any_sent = True
        self._left = [backlog for backlog in self._left if len(backlog)]
        return any_sent

    def _send(self, backlog: Backlog, record: FrameRecord, *, wait: bool) -> None:
        try:
            self._outbox.send(record, wait=wait)
        except RetryableError:
            backlog.put_back(record)
            raise
        self._board.apply(LiveSources.send, record.stream_id, len(record.value))

    def _failed(self, error: AdawiseError, wait_s: float) -> None:
        self._failed_at = self._outbox.acknowledged
        self._board.apply(LiveSources.retry, error, _SENDING)
        _log.warning("retry_scheduled", error=str(error), wait_s=round(wait_s, 1))

    def _note_acknowledged(self) -> None:
        """Note the end of an outage once the broker acknowledges something: the absence of errors does not end it."""
        if self._failed_at is not None and self._outbox.acknowledged > self._failed_at:
            self._failed_at = None
            self._board.apply(LiveSources.retries_ended, _SENDING)


def _end(watches: Iterable[Watch]) -> None:
    """Stop all of them at once, then wait, as each may take a moment."""
    ending = list(watches)
    for watch in ending:
        watch.stop()
    for watch in ending:
        watch.join()
