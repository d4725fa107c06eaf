"""One image about to be sent: what `files` and `video` yield and `produce` takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shot:
    """One encoded image and what its producer knows of it. `stream_id` None: dealt out to the streams in turn."""

    data: bytes
    content_type: str
    frame_id: str
    label: str | None = None
    stream_id: str | None = None
