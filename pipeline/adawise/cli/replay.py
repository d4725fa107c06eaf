"""The command `replay`, which runs the worker on a recording, or on what a topic holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import AliasChoices, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import READING, Command, all_but, optional
from adawise.settings.group import KAFKA_NAME_EXPECTED, KafkaName, Location
from adawise.settings.moments import MOMENT_SCHEMA, Moment
from adawise.settings.recording import STREAMS_SCHEMA, StreamPatterns

_GROUPS = ("model", "search", "scene", "batch", "decode", "predict", "sink", "alerts", "limits", "log")
REPLAY_GROUPS = (*_GROUPS, "results")
_SHORTHANDS = {"search": "search.strategy", "objective": "search.objective", "card": "model.card"}
_TOPIC = {"metavar": "TOPIC", "expected": KAFKA_NAME_EXPECTED}


class ReplayCommand(Command):
    """Run the worker on a recording, or on a topic's messages: the same bytes with the same or another strategy.

    With the same settings, alphas and predictions are the same bit by bit, however cameras interleave and however many
    workers wrote the original; `adawise diff` proves it. A live worker is not affected: a replay uses no group, commits
    nothing, publishes no dead letters or results, and writes to another folder. If it is interrupted, the same command
    continues.
    """

    name = "replay"
    groups = (*READING, "kafka.on_gap", *_GROUPS, *all_but("results", "enabled", "topic"))
    shorthands = _SHORTHANDS
    examples = (
        ("replay a recording as it was served", "replay recordings/yard -o runs/again"),
        ("replay it with a fixed alpha", "replay recordings/yard -o runs/half --search fixed"),
        (
            "replay the last six hours from the broker with another objective",
            "replay --topic yard --from-time 6h -o runs/try --objective entropy",
        ),
        (
            "start from every camera's state at eight",
            "replay recordings/yard -o runs/eight --state-of runs/yard@2026-11-25T08:00:00Z",
        ),
        (
            "replay with the pairs that served it, switches included",
            "replay recordings/yard -o runs/again --pairs-of runs/yard --batches-of runs/yard",
        ),
        ("replay at the speed of the cameras", "replay recordings/yard -o runs/again --speed 1"),
    )

    recording: CliPositionalArg[Location | None] = optional("folder or URL of a recording; none: --topic")
    output: Location = Field(
        validation_alias=AliasChoices("output", "o"),
        description="new folder or s3://BUCKET/PREFIX for predictions and traces, in place of "
        "sink.root; a stopped replay continues in its own",
        json_schema_extra={"metavar": "FOLDER"},
    )
    topic: KafkaName | None = optional(
        "topic to replay directly from the broker, up to its end when the replay begins", **_TOPIC
    )
    from_time: Moment | None = optional(
        "messages from this time on, by the broker's timestamps; none: all", **MOMENT_SCHEMA
    )
    until: Moment | None = optional(
        "messages before this time; a batch that continues after it is left out; none: all", **MOMENT_SCHEMA
    )
    streams: StreamPatterns | None = optional("replay only these streams; none: all", **STREAMS_SCHEMA)
    state_of: Location | None = optional(
        "start from recorded adaptation states: of a segment (only its partition is "
        "replayed), or of an output folder at a time, ROOT@TIME, by when a worker wrote "
        "it, or in a replay's folder by the cameras' time; the replay continues exactly as "
        "that run did",
        metavar="SEGMENT",
    )
    pairs_of: Location | None = optional(
        "serve each partition with the pair that served it in this worker's folder, "
        "switched at the same offsets (`adawise pair`); pairs other than that of model.* "
        "are loaded from the paths in its documents; none: only the pair of model.*",
        metavar="ROOT",
    )
    batches_of: Location | None = optional(
        "end each batch where it ended in this folder of a worker or replay, also if the "
        "wall clock or a lack of memory ended it, which timestamps cannot show; none: by "
        "batch.* and the timestamps",
        metavar="ROOT",
    )
    speed: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="speed by the recorded timestamps: 1 as it was, 10 ten times as fast; pauses over "
        "an hour are skipped; none: as fast as the model allows",
    )
    results_to: KafkaName | None = optional(
        "publish results (results.*) on this topic of kafka.bootstrap_servers; none: "
        "publish none, also with results.enabled",
        **_TOPIC,
    )
    skip_forgotten: CliToggleFlag[bool] = Field(
        default=False, description="leave out recorded messages whose images were removed (--forget-images-after)"
    )

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return the groups that must be complete. A recording needs no broker."""
        return frozenset(("kafka", *REPLAY_GROUPS) if options.keys() & {"topic", "results_to"} else REPLAY_GROUPS)

    @classmethod
    @override
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a mistake if there is nothing to read, or if options contradict each other."""
        if "recording" not in options and "topic" not in options:
            yield "recording", "expected a recording; name its folder, or a topic with --topic"
        if "recording" in options and "topic" in options:
            yield "topic", "expected either a recording or a topic; leave one of them out"
        if "skip_forgotten" in options and "topic" in options:
            yield "skip_forgotten", "it needs a recording; leave it out"
        if "from_time" in options and "state_of" in options:
            yield "from_time", "--state-of sets where to begin too; leave one of them out"

    @override
    def call(self) -> int:
        """Return 0, or 130 if it was stopped: the same command goes on where it was."""
        from adawise.app.signals import INTERRUPTED, stop_signals
        from adawise.console import progress
        from adawise.replay.replay import ReplayRequest, replay

        request = ReplayRequest(**{name: value for name, value in self if name != "config"})
        with stop_signals() as stop:
            done = replay(request, stop=stop, shown=lambda total: progress("replayed", total, "messages"))
        if done.images or done.rejected:
            counts = f"{done.images} images served, {done.rejected} rejected"
            print(f"{counts}, {done.forward_equivalents:.2f} forwards per image: {self.output}")
        elif not done.stopped:
            has = f"{self.output} has all of {done.source}"
            print(f"nothing was left to do: {has}; for another strategy, use a new folder")
        if done.stopped:
            print("stopped before the end; the same command goes on from here")
        elif not done.ends_streams:
            print("batches that are open at --until lack their later messages and are not written")
        return INTERRUPTED if done.stopped else 0
