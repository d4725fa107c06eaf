"""The settings of one camera: where its stream is, how much of it is wanted, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from adawise.produce.address import Address, Transport, address_of


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """One camera, as its file describes it.

    Args:
        stream_id: its name, which is the key of its messages.
        source: a URL with its credentials, a device or the path of a video.
        loop: a video begins again at its end.
        rate: the most frames a second; None: all of them.
        longest: the most pixels of the longer side, as sent; None: as they come.
        quality: of the JPEGs that are made, 1 to 100. JPEGs that come within the limits are passed on as they are.
        keyframes: only keyframes are decoded, which costs little, and gives few frames.
        transport: of RTSP.
        hosts: hosts other than the source's own that its server may redirect to, in lower case.
        timeout_s: time without a frame after which the reader connects again.
        frozen_after_s: time of one repeated picture after which the camera is reported as frozen.
        clock: the clock of a frame's time: "stream", where the stream has a plausible one, or "arrival".
        when_behind: what happens when the broker is too slow: "drop" drops the oldest frames, "wait" holds the camera
            up.
        held_bytes: the most bytes of frames that wait for the broker.
        max_pixels: of a frame as it comes; a larger one has the stream refused.
        max_frame_bytes: of a frame as it is sent; a larger one is dropped.
        memory_bytes: the memory that its process may take.
    """

    stream_id: str
    source: str = field(repr=False)
    loop: bool
    rate: float | None
    longest: int | None
    quality: int
    keyframes: bool
    transport: Transport
    hosts: tuple[str, ...]
    timeout_s: float
    frozen_after_s: float
    clock: Literal["stream", "arrival"]
    when_behind: Literal["drop", "wait"]
    held_bytes: int
    max_pixels: int
    max_frame_bytes: int
    memory_bytes: int

    @property
    def address(self) -> Address:
        """The source as it may be shown."""
        return address_of(self.source)
