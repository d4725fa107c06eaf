"""What is known of one camera before it is read: where its stream is, how much of it is wanted, what it may cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from adawise.cameras.address import Address, Transport, address_of


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """One camera, as its file says.

    Args:
        stream_id: its name, which is the key of its messages.
        source: a URL with its credentials, a device or the path of a video.
        loop: a video begins again at its end.
        rate: frames a second at most; None: all of them.
        longest: pixels of the longer side at most, of what is sent; None: as they come.
        quality: of the JPEGs that are made, 1 to 100. JPEGs that come within the limits are passed on as they are.
        keyframes: nothing but keyframes is decoded, which costs little, and gives few frames.
        transport: of RTSP.
        hosts: others than that of the source that its server may lead to, in lower case.
        timeout_s: without a frame, after which the camera is connected to again.
        frozen_after_s: of one picture, after which the camera is said to be frozen.
        clock: whose time a frame has: the stream's, where that has one that is right, or that of its arrival.
        when_behind: what the broker does not take in time: the oldest frames are dropped, or the camera waits.
        held_bytes: of frames that wait for the broker.
        max_pixels: of a frame as it comes; beyond, the stream is refused.
        max_frame_bytes: of a frame as it is sent; beyond, it is dropped.
        memory_bytes: that its process may take.
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
