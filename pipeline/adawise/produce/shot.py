"""One image about to be sent: what `files` and `video` yield and `produce` takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shot:
    """One encoded image and what its producer knows of it. `stream_id` None: dealt out to the streams in turn.

    `at_s` is of a video that keeps its own time: seconds from its begin to this frame; None: it is of now.
    """

    data: bytes
    content_type: str
    frame_id: str
    label: str | None = None
    stream_id: str | None = None
    at_s: float | None = None
