"""The command `produce`, which publishes images of a folder, a list, a video or a data set to the topic."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import BROKER, Command, optional
from adawise.settings.group import FilePath, Location
from adawise.settings.moments import MOMENT_SCHEMA, Moment

if TYPE_CHECKING:
    from adawise.produce.files import FileShots
    from adawise.produce.video import VideoShots

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SEED = 0
_INFLIGHT_MESSAGES = 8  # messages of the largest size that may be on their way to the broker at once
_SHOWN = 5  # skipped files
_NOT_WITH_COCO = {
    **dict.fromkeys(("streams", "stream_ids"), "has a camera for each location"),
    **dict.fromkeys(("start", "shuffle"), "sends images in the order of their own times"),
    "fast": "sends as fast as possible without it",
}


def _names(value: str) -> str:
    names = value.split(",")
    if not all(name.strip() for name in names) or len(set(names)) != len(names):
        raise ValueError("a name is empty or is there twice")
    return value


class ProduceCommand(Command):
    """Send images to the topic: a folder (the names of its subfolders become labels), a list, or a video.

    Each stream is a separate camera; images are distributed to the streams in turn. A video is sent at its own speed,
    and its frames have the times at which they were taken, whatever the frame rate. For network streams and devices,
    use `adawise cameras`.

    --coco sends a data set of camera traps, whose images are below SOURCE: each location is a camera, the category is
    the label, and images have the times at which they were taken, in whose order they are sent.
    """

    name = "produce"
    groups = (*BROKER, "kafka.topic", "decode.max_message_bytes", "log")
    examples = (
        ("send a folder as four cameras, 20 images a second", "produce images/ --streams 4 --rate 20"),
        ("send a video in a loop, as a camera", "produce day.mp4 --stream-ids yard --loop"),
        (
            "send a recorded day that began at eight within an hour",
            "produce day.mp4 --speed 24 --start 2026-11-25T08:00:00Z",
        ),
        ("send a data set of camera traps, each location as a camera", "produce images/ --coco cameratraps.json"),
        ("send a folder as batches of 16 to a new topic", "produce images/ --batch 16 --create-topic --partitions 4"),
    )

    source: CliPositionalArg[Location] = Field(description="folder, text file with one path a line, or video")
    streams: int | None = Field(default=None, ge=1, le=100_000, description="number of streams (cameras); none: one")
    stream_ids: Annotated[str, AfterValidator(_names)] | None = optional(
        "names of the streams, in place of --streams", metavar="A,B", expected="names separated by commas, each once"
    )
    coco: FilePath | None = optional(
        "document in the format COCO Camera Traps that describes the images below SOURCE", metavar="FILE"
    )
    locations: Annotated[str, AfterValidator(_names)] | None = optional(
        "locations of --coco to send; none: all", metavar="A,B", expected="names separated by commas, each once"
    )
    rate: float | None = Field(
        default=None,
        gt=0,
        description="images a second of all streams together; none: a video at its own speed, others "
        "as fast as possible",
    )
    speed: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="speed of a video or of --coco: its seconds that are sent in one second; none: 1, and --coco as "
        "fast as possible",
    )
    fast: CliToggleFlag[bool] = Field(default=False, description="send a video as fast as possible, with its own times")
    start: Moment | None = optional(
        "time of a video's first frame; none: when the file says that it was recorded, or now", **MOMENT_SCHEMA
    )
    loop: CliToggleFlag[bool] = Field(default=False, description="start again at the end, until stopped")
    batch: int = Field(default=1, ge=1, le=4096, description="images of a message; 1: single images")
    shuffle: CliToggleFlag[bool] = Field(default=False, description="shuffle the images (with a fixed seed)")
    create_topic: CliToggleFlag[bool] = Field(default=False, description="create the topic if there is none")
    partitions: int = Field(default=4, ge=1, le=10_000, description="partitions of a topic that is created")
    limit: int | None = Field(default=None, ge=1, description="images after which to stop")

    @classmethod
    @override
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield options that contradict each other, and options that would have no effect."""
        if "streams" in options and "stream_ids" in options:
            yield "stream_ids", "both it and --streams set the streams; leave one of them out"
        if "partitions" in options and "create_topic" not in options:
            yield "partitions", "it needs --create-topic; add that, or leave this out"
        paces = [name for name in ("rate", "speed", "fast") if name in options]
        if len(paces) > 1:
            yield paces[1], f"--{paces[0]} sets the speed too; leave one of them out"
        if "coco" in options:
            for name, why in _NOT_WITH_COCO.items():
                if name in options:
                    yield name, f"--coco {why}; leave one of them out"
            return
        if "locations" in options:
            yield "locations", "it needs --coco; add that, or leave this out"
        of_video = [name for name in ("speed", "fast", "start") if name in options]
        if of_video and isinstance(source := options.get("source"), str):
            from adawise.produce.address import is_video

            if not is_video(source):
                yield of_video[0], "it needs a video, since images have no times; leave it out, or use --rate"

    @override
    def call(self) -> int:
        """Publish the images. Return 0, or 130 if Ctrl-C ended it, unless --loop, which has no other end."""
        from adawise.app.kafka import reach
        from adawise.app.signals import INTERRUPTED, stop_signals
        from adawise.console import print_text, progress
        from adawise.produce.produce import Gathering, produce
        from adawise.produce.sender import KafkaSender, ensure_topic
        from adawise.produce.video import VideoShots
        from adawise.text import as_size, separated

        kafka, largest = self.settings.kafka, int(self.settings.decode.max_message_bytes)
        clients, held = reach(kafka), _INFLIGHT_MESSAGES * largest
        shots = self._shots(largest)
        began = self.start or (shots.created() if isinstance(shots, VideoShots) else None)
        topic: dict[str, Any] = {**clients, "topic": kafka.topic, "max_message_bytes": largest}
        ensure_topic(**topic, create=self.create_topic, partitions=self.partitions)
        names = separated(self.stream_ids) or tuple(f"camera-{number}" for number in range(self.streams or 1))
        stop = Event()
        with progress("produced", total=self.limit) as bar, stop_signals(on_stop=stop.set):
            sender = KafkaSender(**topic, max_inflight_bytes=held, timeout_s=30.0, on_progress=bar.advance)
            with closing(sender):
                done = produce(
                    shots,
                    sender,
                    streams=names,
                    gathering=Gathering(batch=self.batch, max_message_bytes=largest, max_held_bytes=held),
                    rate=self.rate,
                    speed=None if self.fast else self.speed or (1.0 if self.coco is None else None),
                    begins_us=None if began is None else (began - _EPOCH) // timedelta(microseconds=1),
                    limit=self.limit,
                    stop=stop,
                )
        size = as_size(done.image_bytes)
        what = f"{done.images} images ({size}) in {done.messages} messages to {kafka.topic}"
        print_text(f"{what}, {len(done.by_stream)} streams, {done.seconds:.1f} s")
        for name, why in list(shots.skipped.items())[:_SHOWN]:
            print_text(f"skipped {name}: {why}", sys.stderr)
        if len(shots.skipped) > _SHOWN:
            print_text(f"and {len(shots.skipped) - _SHOWN} more files skipped", sys.stderr)
        return INTERRUPTED if stop.is_set() and not self.loop else 0

    def _shots(self, max_message_bytes: int) -> FileShots | VideoShots:
        """Return the images to send; print what a data set has."""
        from adawise.console import print_text
        from adawise.produce.produce import open_shots, open_site
        from adawise.text import separated

        if self.coco is None:
            seed = _SEED if self.shuffle else None
            return open_shots(self.source, max_message_bytes=max_message_bytes, loop=self.loop, shuffle_seed=seed)
        from adawise.produce.camera_traps import read_site

        site = read_site(self.coco, Path(self.source), separated(self.locations))
        print_text(f"{self.coco}: {site.summary()}")
        return open_site(site, max_message_bytes=max_message_bytes, loop=self.loop)
