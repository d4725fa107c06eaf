"""The options of `adawise produce`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import BROKER, Command
from adawise.settings.group import Location
from adawise.settings.moments import MOMENT_SCHEMA, Moment


def _stream_ids(value: str) -> str:
    names = value.split(",")
    if not all(name.strip() for name in names) or len(set(names)) != len(names):
        raise ValueError("a name is empty or is there twice")
    return value


class ProduceCommand(Command):
    """Send images to the topic: a folder (the names of its subfolders become labels), a list, or a video.

    Each stream is a separate camera; images are distributed to the streams in turn. A video is sent at its own speed,
    and its frames have the times at which they were taken, whatever the frame rate. For network streams and devices,
    use `adawise cameras`.
    """

    name = "produce"
    runs = "adawise.cli.produce.run:produce"
    groups = (*BROKER, "kafka.topic", "decode.max_message_bytes", "log")
    examples = (
        ("send a folder as four cameras, 20 images a second", "produce images/ --streams 4 --rate 20"),
        ("send a video in a loop, as a camera", "produce day.mp4 --stream-ids yard --loop"),
        (
            "send a recorded day that began at eight within an hour",
            "produce day.mp4 --speed 24 --start 2026-11-25T08:00:00Z",
        ),
        ("send a folder as batches of 16 to a new topic", "produce images/ --batch 16 --create-topic --partitions 4"),
    )

    source: CliPositionalArg[Location] = Field(description="folder, text file with one path a line, or video")
    streams: int | None = Field(default=None, ge=1, le=100_000, description="number of streams (cameras); none: one")
    stream_ids: Annotated[str, AfterValidator(_stream_ids)] | None = Field(
        default=None,
        description="names of the streams, in place of --streams",
        json_schema_extra={"metavar": "A,B", "expected": "names separated by commas, each once"},
    )
    rate: float | None = Field(
        default=None,
        gt=0,
        description="images a second of all streams together; none: a video at its own speed, others "
        "as fast as possible",
    )
    speed: float | None = Field(
        default=None, gt=0, le=1e6, description="speed of a video: its seconds that are sent in one second; none: 1"
    )
    fast: CliToggleFlag[bool] = Field(default=False, description="send a video as fast as possible, with its own times")
    start: Moment | None = Field(
        default=None,
        description="time of a video's first frame; none: when the file says that it was recorded, or now",
        json_schema_extra=MOMENT_SCHEMA,
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
        of_video = [name for name in ("speed", "fast", "start") if name in options]
        if of_video and isinstance(source := options.get("source"), str):
            from adawise.produce.address import is_video

            if not is_video(source):
                yield of_video[0], "it needs a video, since images have no times; leave it out, or use --rate"
