"""The command `record`, which stores the raw messages of a topic as they came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import CliToggleFlag
from typing_extensions import override

from adawise.cli.command import READING, Command, optional
from adawise.cli.services import RECORDING_ENDS
from adawise.settings.group import Location
from adawise.settings.moments import MOMENT_SCHEMA, Moment, milliseconds
from adawise.settings.recording import (
    DURATION_SCHEMA,
    FORGET_IMAGES_AFTER,
    KEEP,
    STREAMS_SCHEMA,
    Duration,
    StreamPatterns,
)

_NOT_WITH_PRUNE_ONLY = ("from", "from_time", *RECORDING_ENDS, "streams", "follow")


class RecordCommand(Command):
    """Store the raw messages of a topic as Parquet for a replay. It decodes nothing and joins no group.

    It ends at the topic's current end; with --follow it goes on, and waits for a broker or store that does not answer.
    A message belongs to the stream of its key, else of its header `stream-id`, else of CloudEvents. The worker can
    record too, while it runs: see `record.enabled`.
    """

    name = "record"
    groups = (*READING, "log")
    examples = (
        ("record ten minutes from now on", "record --output recordings/yard --from latest --max-seconds 600"),
        ("record all that the topic still has", "record --output recordings/yard"),
        ("record some cameras for an hour of the past", "record -o r --streams 'gate-*' --from-time 2h --until 1h"),
        (
            "record without end; keep messages for a week, images for a day",
            "record -o r --follow --keep 7d --forget-images-after 24h",
        ),
        ("remove expired files while no recorder runs", "record -o r --prune-only"),
    )

    output: Location = Field(
        validation_alias=AliasChoices("output", "o"),
        description="folder or s3://BUCKET/PREFIX for the files; a recording of this topic in it is continued",
        json_schema_extra={"metavar": "FOLDER"},
    )
    origin: Literal["earliest", "latest"] = Field(
        default="earliest",
        validation_alias=AliasChoices("from"),
        description="where to begin; latest: from now on, until stopped unless an option ends it",
    )
    from_time: Moment | None = optional("begin with each partition's first message from this time on", **MOMENT_SCHEMA)
    until: Moment | None = optional(
        "end before each partition's first message from this time on; waits for a future time", **MOMENT_SCHEMA
    )
    max_messages: int | None = Field(default=None, ge=1, description="messages after which to stop")
    max_seconds: float | None = Field(default=None, gt=0, description="seconds after which to stop")
    max_bytes: int | None = Field(default=None, ge=1, description="bytes of messages after which to stop")
    streams: StreamPatterns | None = optional("record only these streams; none: all", **STREAMS_SCHEMA)
    keep: Duration | None = optional(KEEP, **DURATION_SCHEMA)
    forget_images_after: Duration | None = optional(FORGET_IMAGES_AFTER, **DURATION_SCHEMA)
    follow: CliToggleFlag[bool] = Field(default=False, description="go on until stopped, storing messages as they come")
    prune_only: CliToggleFlag[bool] = Field(
        default=False, description="only remove what is too old by --keep and --forget-images-after, and exit"
    )

    @classmethod
    @override
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a second beginning, and options that would have no effect."""
        if "from" in options and "from_time" in options:
            yield "from_time", "both it and --from set where to begin; leave one of them out"
        for name in RECORDING_ENDS if "follow" in options and "prune_only" not in options else ():
            if name in options:
                yield name, "it ends the recording, but --follow does not end; leave one of them out"
        for name in _NOT_WITH_PRUNE_ONLY if "prune_only" in options else ():
            if name in options:
                yield name, "it has no effect with --prune-only; leave one of them out"

    @override
    def call(self) -> int:
        """Return 130 if it was stopped before its end, 1 if something could not be pruned, else 0."""
        from adawise.app.recording import record_topic
        from adawise.app.signals import INTERRUPTED, stop_signals
        from adawise.console import progress
        from adawise.recording.format import Retention
        from adawise.recording.retention import prune
        from adawise.recording.run import Bounds

        kafka, output, retention = self.settings.kafka, self.output, Retention(self.keep, self.forget_images_after)
        if self.prune_only:
            if (pruned := prune(output, retention)) is None:
                keeps = "keeps everything: it was started without --keep and --forget-images-after; give one of them"
                print(f"{output} {keeps}")
                return 0
            print("\n".join([f"{output}: {pruned}", *pruned.errors]))
            return 1 if pruned.errors else 0
        until_ms = None if self.until is None else milliseconds(self.until)
        bounds = Bounds(self.max_messages, self.max_bytes, self.max_seconds, until_ms)
        origin = self.origin if self.from_time is None else milliseconds(self.from_time)
        ends = {name: getattr(self, name) for name in RECORDING_ENDS}
        follows = self.is_service({"follow": self.follow, "from": self.origin, **ends})
        bounds.until_drained = not follows and bounds == Bounds()
        with stop_signals() as stop, progress("recorded", total=self.max_messages, unit="messages") as bar:
            runs = record_topic(
                kafka,
                output,
                bounds,
                origin=origin,
                follows=follows,
                stop=stop,
                bar=bar,
                streams=self.streams,
                retention=retention,
            )
        if runs.began:
            print(runs.recorded.summary(kafka.topic, output))
        if stop() and not follows:
            print("stopped before the end; the same command goes on from here")
            return INTERRUPTED
        return 0
