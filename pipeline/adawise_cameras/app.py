"""Settings and a file of cameras -> the cameras to be read, and the outbox of their frames."""

from __future__ import annotations

from adawise.app.kafka import security
from adawise.produce.address import with_credentials
from adawise.produce.produce import ROOM_BYTES
from adawise.publish.outbox import Outbox, producer_of
from adawise.settings import Settings
from adawise.settings.cameras import NamedCamera
from adawise_cameras.backlog import FrameRecord
from adawise_cameras.camera import CameraSpec

_INFLIGHT_BYTES = 16 * 2**20
_TIMEOUT_S = 10.0
_MEANWHILE = "Until then frames wait in memory; when it is full, frames are dropped or cameras not read (when_behind)."


def cameras_of(named: list[NamedCamera], settings: Settings) -> list[CameraSpec]:
    """Return the specifications by which the cameras are read."""
    return [_camera(each, int(settings.decode.max_message_bytes)) for each in named]


def _camera(named: NamedCamera, max_message_bytes: int) -> CameraSpec:
    table, source = named.table, named.source
    if table.username is not None:
        source = with_credentials(source, table.username, named.password or "")
    return CameraSpec(
        stream_id=named.name,
        source=source,
        loop=table.loop,
        rate=table.rate,
        longest=table.longest,
        quality=table.quality,
        keyframes=table.keyframes,
        transport=table.transport,
        hosts=tuple(table.hosts.split(",") if table.hosts else ()),
        timeout_s=table.timeout_s,
        frozen_after_s=table.frozen_after_s,
        clock=table.clock,
        when_behind=table.when_behind,
        held_bytes=int(table.held),
        max_pixels=table.max_pixels,
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
