"""One image about to be sent: `files` and `video` yield it, `produce` takes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shot:
    """One encoded image and what its producer knows of it.

    Attributes:
        data: the encoded image.
        content_type: its media type.
        frame_id: its frame id in the output.
        label: its true label, if known.
        stream_id: its stream; None if it is assigned to the streams in turn.
        at_s: for a video with times of its own, seconds from its begin to this frame; None: it is taken now.
    """

    data: bytes
    content_type: str
    frame_id: str
    label: str | None = None
    stream_id: str | None = None
    at_s: float | None = None
