"""Settings and a file of cameras -> the cameras to be read, the outbox of their frames, and the service that runs."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import structlog

from adawise.app.http import cameras_port
from adawise.app.kafka import log_certificates, security
from adawise.app.signals import stop_signals
from adawise.app.waiting import patiently
from adawise.errors import AdawiseError, SettingsError
from adawise.produce.address import with_credentials
from adawise.produce.produce import ROOM_BYTES
from adawise.produce.sender import ensure_topic
from adawise.publish.outbox import Outbox, producer_of
from adawise.settings import Settings
from adawise.settings.cameras import NamedCamera, read_cameras
from adawise.watch.board import SourceBoard
from adawise.watch.sources import LiveSources
from adawise.worker.attempts import STARTING
from adawise.worker.events import Phase
from adawise_cameras.camera import CameraSpec
from adawise_cameras.child import Child
from adawise_cameras.service import Service
from adawise_cameras.watch import FrameRecord

_log = structlog.get_logger("cameras")

_SAME = (  # in the table of a camera and in its specification
    *("loop", "rate", "longest", "quality", "keyframes", "transport", "timeout_s", "frozen_after_s", "clock"),
    *("when_behind", "max_pixels"),
)
_INFLIGHT_BYTES = 16 * 2**20
_TIMEOUT_S = 10.0
_MEANWHILE = "Until then frames wait in memory; when it is full, frames are dropped or cameras not read (when_behind)."


def read_until_stopped(settings: Settings, file: str, *, create_topic: bool, partitions: int) -> int:
    """Read the cameras and publish their frames until SIGTERM or SIGINT; then publish what is left, and return 0.

    While the broker does not answer, at the start or later, the command waits for it.
    """
    cameras, kafka = cameras_of(settings, file), settings.kafka
    title = f"cameras to {kafka.topic} by {socket.gethostname()}:{os.getpid()}"
    with stop_signals() as should_stop, _reloads() as wants_reload, cameras_port(settings.http, title) as board:
        log_certificates(kafka)
        service = Service(frames_outbox(settings), topic=kafka.topic, board=board, connect=Child)
        try:
            with should_stop.interrupts():
                _await_topic(settings, board, should_stop, create=create_topic, partitions=partitions)
        except KeyboardInterrupt:
            _log.info("cameras_stopped", note="it was asked to stop before the broker answered; nothing was read")
            return 0
        board.apply(LiveSources.enter, Phase.WORKING)
        service.read(cameras)
        _log.info("cameras_started", cameras=len(cameras), topic=kafka.topic)

        def each_turn() -> None:
            if wants_reload():
                _reload(service, settings, file)

        try:
            service.run(should_stop, each_turn)
        finally:
            board.apply(LiveSources.enter, Phase.STOPPING)
            service.close()
        _log.info("cameras_stopped")
    return 0


def _await_topic(
    settings: Settings, board: SourceBoard, should_stop: Callable[[], bool], *, create: bool, partitions: int
) -> None:
    kafka = settings.kafka

    def topic_exists() -> bool:
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
        board.apply(LiveSources.retry, error, STARTING)
        _log.warning("retry_scheduled", error=str(error), wait_s=round(wait_s, 1))

    patiently(topic_exists, failed, should_stop)
    board.apply(LiveSources.retries_ended, STARTING)


@contextmanager
def _reloads() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True if SIGHUP came since its last call."""
    is_requested = False

    def request(*_: object) -> None:
        nonlocal is_requested
        is_requested = True

    def take() -> bool:
        nonlocal is_requested
        was, is_requested = is_requested, False
        return was

    previous = signal.signal(signal.SIGHUP, request)
    try:
        yield take
    finally:
        signal.signal(signal.SIGHUP, previous)


def _reload(service: Service, settings: Settings, file: str) -> None:
    """Read the file again. With a mistake in it, all cameras go on as before."""
    try:
        changes = service.read(cameras_of(settings, file))
    except SettingsError as error:
        _log.error("cameras_not_reloaded", error=str(error), note="all cameras go on as before")
    else:
        _log.info("cameras_reloaded", added=changes.added, changed=changes.changed, removed=changes.removed)


def cameras_of(settings: Settings, file: str) -> list[CameraSpec]:
    """Return the cameras of a file, as they are read. Raises SettingsError for mistakes in it, and without PyAV."""
    if find_spec("av") is None:
        raise SettingsError(
            "expected the package av, which reads streams, but it is not installed. Install it: pip install "
            "'adawise[cameras]'"
        )
    named = read_cameras(Path(file), file, os.environ)
    return [spec_of(each, int(settings.decode.max_message_bytes)) for each in named]


def spec_of(named: NamedCamera, max_message_bytes: int) -> CameraSpec:
    """Return the specification by which a camera is read."""
    table, source = named.table, named.source
    if table.username is not None:
        source = with_credentials(source, table.username, named.password or "")
    return CameraSpec(
        **{name: getattr(table, name) for name in _SAME},
        stream_id=named.name,
        source=source,
        hosts=tuple(table.hosts.split(",") if table.hosts else ()),
        held_bytes=int(table.held),
        max_frame_bytes=max_message_bytes - ROOM_BYTES,
        memory_bytes=int(table.memory),
    )


def frames_outbox(settings: Settings) -> Outbox[FrameRecord]:
    """Return the outbox that sends frames to the topic, which has to exist."""
    kafka = settings.kafka
    return Outbox(
        connect=producer_of(
            kafka.bootstrap_servers,
            security(kafka),
            client_id=kafka.client_id,
            max_request_bytes=int(settings.decode.max_message_bytes) + ROOM_BYTES,
            timeout_s=_TIMEOUT_S,
            reconnect_backoff_max_ms=2_000,  # frames wait in memory, and half a minute of them may be too many
            max_in_flight_requests_per_connection=1,  # or a retried frame comes after its successors
        ),
        prepare=None,
        where=kafka.bootstrap_servers,
        what="a frame",
        meanwhile=_MEANWHILE,
        max_inflight_bytes=_INFLIGHT_BYTES,
        timeout_s=_TIMEOUT_S,
        in_order=True,
    )
