"""A recording of two cameras, one in each partition, that took their images long before they were sent; no broker."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from adawise.ports import TopicIdentity
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.records import Message
from adawise.replay.replay import ReplayRequest, replay
from adawise.settings import Settings
from tests.fixtures.making import BATCH_IMAGES, IDENTITY, TOPIC, settings
from tests.models import random_images

BEGIN = datetime(2026, 3, 1, 8, tzinfo=UTC)
SENT_MS = 1_777_593_600_000  # two months later, all at once
EVERY = timedelta(seconds=10)
BATCHES = 12
CAMERAS = ("north", "south")


def taken(batch: int) -> datetime:
    """When the last image of a batch was taken."""
    return BEGIN + batch * EVERY


def pictures_of(partition: int) -> Iterator[bytes]:
    """Pictures of noise for the camera of a partition, as JPEG."""
    for pixels in random_images(BATCHES * BATCH_IMAGES, seed=partition):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(jpeg := io.BytesIO(), "JPEG")
        yield jpeg.getvalue()


def write_recording(
    folder: Path,
    batches: range = range(BATCHES),
    identity: TopicIdentity = IDENTITY,
    pictures: Callable[[int], Iterable[bytes]] = pictures_of,
) -> Path:
    """These batches, at offsets from 0 on; `pictures` returns those of all batches of a partition."""
    policy = FilePolicy(max_messages=1 << 60, max_bytes=1 << 60, max_age_s=1e9)
    recorder = Recorder(str(folder), topic=TOPIC, identity=identity, policy=policy, max_buffered_bytes=1 << 60)
    for partition, camera in enumerate(CAMERAS):
        messages = []
        chosen = islice(pictures(partition), batches.start * BATCH_IMAGES, batches.stop * BATCH_IMAGES)
        for n, jpeg in enumerate(chosen):
            batch, place = divmod(n, BATCH_IMAGES)
            at = taken(batches[batch]) - timedelta(milliseconds=100 * (BATCH_IMAGES - 1 - place))
            headers = (("content-type", b"image/jpeg"), ("captured-at", at.isoformat().encode()))
            sent = Message(TOPIC, partition, n, camera.encode(), jpeg, headers, timestamp_ms=SENT_MS + n)
            messages.append(sent)
        recorder.begin(messages[0].topic_partition, recorder.folder.begin(messages[0].topic_partition, 0))
        recorder.append(messages, 0.0)
    recorder.flush()
    return folder


def run(
    recording: Path,
    output: Path,
    *,
    state_of: str | None = None,
    streams: str | None = None,
    shortlists: Sequence[Mapping[str, Any]] = (),
    prior: str = "off",
    smoothing: str = "off",
) -> Path:
    """A replay, of two batches in a segment; returns the output."""
    tree = settings(Path("unused")).model_dump()
    tree["sink"] |= {"flush_rows": 2 * BATCH_IMAGES}
    tree["scene"] = {"shortlists": shortlists, "prior": prior, "smoothing": smoothing}
    requested = ReplayRequest(
        settings=Settings.model_validate(tree),
        recording=str(recording),
        output=str(output),
        state_of=state_of,
        streams=streams,
    )
    assert not replay(requested).stopped
    return output
