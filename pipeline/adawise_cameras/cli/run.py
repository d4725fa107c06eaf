"""The work of `adawise cameras`: publish the frames of the cameras in a file, or try each camera once.

Each camera is read by a process of its own (`Child`).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import structlog

from adawise.app.http import cameras_port
from adawise.app.kafka import security, tell_of_certificates
from adawise.app.signals import INTERRUPTED, stop_signals
from adawise.app.waiting import patiently
from adawise.console import paper
from adawise.errors import AdawiseError, SettingsError
from adawise.produce.sender import ensure_topic
from adawise.settings import Settings
from adawise.settings.cameras import read_cameras
from adawise.text import as_size
from adawise.watch.board import SourceBoard
from adawise.watch.sources import LiveSources
from adawise.worker.attempts import STARTING
from adawise.worker.events import Phase
from adawise_cameras import wire
from adawise_cameras.app import cameras_of, frames_outbox
from adawise_cameras.camera import CameraSpec
from adawise_cameras.child import Child
from adawise_cameras.service import Service
from adawise_cameras.watch import SAYS_WHY_S, no_process
from adawise_cameras.wire import CameraFrame, End, Ended, Opened

_log = structlog.get_logger("cameras")

_AT_ONCE = 16  # cameras that are tried at the same time


def read_until_stopped(settings: Settings, file: str, *, create_topic: bool, partitions: int) -> int:
    """Read the cameras and publish their frames until SIGTERM or SIGINT; then publish what is left, and return 0.

    While the broker does not answer, at the start or later, the command waits for it.
    """
    cameras, kafka = _cameras(settings, file), settings.kafka
    title = f"cameras to {kafka.topic} by {socket.gethostname()}:{os.getpid()}"
    with stop_signals() as should_stop, _reloads() as wants_reload, cameras_port(settings.http, title) as board:
        tell_of_certificates(kafka)
        service = Service(frames_outbox(settings), topic=kafka.topic, board=board, connect=Child)
        try:
            with should_stop.interrupts():
                _await_topic(settings, board, should_stop, create=create_topic, partitions=partitions)
        except KeyboardInterrupt:
            _log.info("cameras_stopped", note="it was asked to stop before the broker answered; nothing was read")
            return 0
        board.tell(LiveSources.enter, Phase.WORKING)
        service.read(cameras)
        _log.info("cameras_started", cameras=len(cameras), topic=kafka.topic)

        def each_turn() -> None:
            if wants_reload():
                _reload(service, settings, file)

        try:
            service.run(should_stop, each_turn)
        finally:
            board.tell(LiveSources.enter, Phase.STOPPING)
            service.close()
        _log.info("cameras_stopped")
    return 0


def _cameras(settings: Settings, file: str) -> list[CameraSpec]:
    if find_spec("av") is None:
        raise SettingsError(
            "expected the package av, which reads streams, but it is not installed. Install it: pip install "
            "'adawise[cameras]'"
        )
    return cameras_of(read_cameras(Path(file), file, os.environ), settings)


def _await_topic(
    settings: Settings, board: SourceBoard, should_stop: Callable[[], bool], *, create: bool, partitions: int
) -> None:
    kafka = settings.kafka

    def look() -> bool:
        return ensure_topic(
            bootstrap_servers=kafka.bootstrap_servers,
            security=security(kafka),
            client_id=kafka.client_id,
            topic=kafka.topic,
            create=create,
            partitions=partitions,
            max_message_bytes=int(settings.decode.max_message_bytes),
        )

    def failed(error: AdawiseError, wait_s: float) -> None:
        board.tell(LiveSources.retry, error, STARTING)
        _log.warning("retry_scheduled", error=str(error), wait_s=round(wait_s, 1))

    patiently(look, failed, should_stop)
    board.tell(LiveSources.retries_ended, STARTING)


@contextmanager
def _reloads() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True if SIGHUP came since its last call."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    def take() -> bool:
        nonlocal asked
        was, asked = asked, False
        return was

    previous = signal.signal(signal.SIGHUP, ask)
    try:
        yield take
    finally:
        signal.signal(signal.SIGHUP, previous)


def _reload(service: Service, settings: Settings, file: str) -> None:
    """Read the file again. With a mistake in it, all cameras go on as before."""
    try:
        changes = service.read(_cameras(settings, file))
    except SettingsError as error:
        _log.error("cameras_not_reloaded", error=str(error), note="all cameras go on as before")
    else:
        _log.info("cameras_reloaded", added=changes.added, changed=changes.changed, removed=changes.removed)


# -- trying each camera once (--check)


@dataclass(frozen=True, slots=True)
class _Tried:
    camera: CameraSpec
    what: str  # the stream, as its process describes it; "" if it was not opened
    came: str  # size and clock of the first frame; "" if none came
    why: str  # why no frame came; "" if one did


def check(settings: Settings, file: str) -> int:
    """Try each camera once, and print a table of the results.

    Returns:
        0 if every camera gave a frame, 1 if one gave none, 130 if the check was interrupted.
    """
    cameras = _cameras(settings, file)
    open_now: set[Child] = set()

    def end_all() -> None:
        for child in list(open_now):
            child.kill()

    with stop_signals(end_all) as should_stop, ThreadPoolExecutor(_AT_ONCE) as pool:
        tried = list(pool.map(lambda camera: _try(camera, open_now, should_stop), cameras))
    if should_stop():
        return INTERRUPTED
    _show(tried)
    return 1 if any(each.why for each in tried) else 0


def _try(camera: CameraSpec, open_now: set[Child], should_stop: Callable[[], bool]) -> _Tried:
    """Read the first frame of a camera.

    Meanwhile its process is in `open_now`, so that the handler of SIGTERM and SIGINT can kill it.
    """
    what = ""
    if should_stop():
        return _Tried(camera, what, "", "asked to stop")
    try:
        child = Child(camera)
    except OSError as error:
        return _Tried(camera, what, "", no_process(error))
    open_now.add(child)
    try:
        while not should_stop():  # the signal may have come before the process was in `open_now`
            match child.next(camera.timeout_s + SAYS_WHY_S):
                case Opened(said):
                    what = said
                case CameraFrame(data, _, clock):
                    return _Tried(camera, what, f"{as_size(len(data))}, clock: {clock}", "")
                case Ended(why, end):
                    return _Tried(camera, what, "", why if end != End.REACHED else "it has no frames.")
                case _:
                    pass
    except wire.Silence:
        return _Tried(
            camera, what, "", f"no frame within {camera.timeout_s:g} s (timeout_s). Check that the camera is on."
        )
    finally:
        open_now.discard(child)
        child.close()
    return _Tried(camera, what, "", "asked to stop")


def _show(tried: Sequence[_Tried]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("camera", "source", "stream", "first frame", box=None)
    for each in tried:
        cells = (each.camera.stream_id, each.camera.address.shown, each.what, each.came or each.why)
        table.add_row(*(Text(cell) for cell in cells))
    paper(sys.stdout).print(table)
