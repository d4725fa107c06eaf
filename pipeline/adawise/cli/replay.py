"""The command `replay`, which runs the worker on a recording, or on what a topic holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import READING, Command, all_but, optional
from adawise.settings.group import KAFKA_NAME_EXPECTED, KafkaName, Location
from adawise.settings.moments import MOMENT_SCHEMA, Moment
from adawise.settings.recording import STREAMS_SCHEMA, StreamPatterns
from adawise.settings.tree import REPLAY_GROUPS
from adawise.text import counted

if TYPE_CHECKING:
    from adawise.replay.replay import ReplayResult

JOB_INDEX = "JOB_COMPLETION_INDEX"
MOST_SHARDS = 100_000

_SHORTHANDS = {"search": "search.strategy", "objective": "search.objective", "card": "model.card"}
_WHOLE = dict.fromkeys(
    ("topic", "state_of", "speed"), "shards are of a recording, begin with no states and run at full speed"
)
_NOT_WITH = {
    "plan": _WHOLE | dict.fromkeys(("pairs_of", "batches_of", "results_to"), "it is for the shards"),
    "shard": _WHOLE | dict.fromkeys(("from_time", "until", "streams", "skip_forgotten"), "the plan has it"),
}
_TOPIC = {"metavar": "TOPIC", "expected": KAFKA_NAME_EXPECTED}


def _number(value: object) -> object:
    """Return the number of a shard, for the word `job` that of the indexed job; raise ValueError if there is none."""
    if value != "job":
        return value
    if not (index := os.environ.get(JOB_INDEX, "")).isdecimal():
        raise ValueError(f"{JOB_INDEX} has no whole number")
    return index


ShardNumber = Annotated[int, BeforeValidator(_number), Field(ge=0)]


class ReplayCommand(Command):
    """Run the worker on a recording, or on a topic's messages: the same bytes with the same or another strategy.

    With the same settings, alphas and predictions are the same bit by bit, however cameras interleave and however many
    workers wrote the original; `adawise diff` proves it. A live worker is not affected: a replay uses no group, commits
    nothing, publishes no dead letters or results, and writes to another folder. If it is interrupted, the same command
    continues.
    """

    name = "replay"
    groups = (*READING, "kafka.on_gap", *REPLAY_GROUPS[:-1], *all_but("results", "enabled", "topic"))
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
        ("divide a long recording between eight machines", "replay recordings/yard --plan 8 -o runs/yard-8"),
        ("replay the first of these shards", "replay recordings/yard --shard 0 -o runs/yard-8"),
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
    plan: Annotated[int, Field(ge=1, le=MOST_SHARDS)] | None = optional(
        "divide the cameras of the recording between N shards by their cost, and write the plan into the folder; no "
        "image is read, and nothing is replayed",
        metavar="N",
        expected=f"a whole number from 1 to {MOST_SHARDS}",
    )
    shard: ShardNumber | None = optional(
        "replay one shard of the plan in the folder, from 0, into a root of its own there; job: the number is in "
        f"{JOB_INDEX}, where an indexed job of Kubernetes has it",
        metavar="I",
        expected="a whole number from 0, or job",
    )

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return the groups that must be complete. A recording needs no broker."""
        if "plan" in options:  # it needs no pair
            return frozenset()
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
        if "plan" in options and "shard" in options:
            yield "shard", "make the plan first, and then replay each of its shards; leave one of them out"
        if kind := next((name for name in _NOT_WITH if name in options), None):
            yield from ((name, f"{why}; leave it out") for name, why in _NOT_WITH[kind].items() if name in options)

    @override
    def call(self) -> int:
        """Return 0, or 130 if it was stopped: the same command goes on where it was."""
        from adawise.app.signals import INTERRUPTED, stop_signals
        from adawise.console import progress
        from adawise.replay.replay import ReplayRequest, replay

        if self.plan is not None:
            return self._plan()
        request = ReplayRequest(**{name: value for name, value in self if name not in {"config", "plan"}})
        with stop_signals() as stop:
            done = replay(request, stop=stop, shown=lambda total: progress("replayed", total, "messages"))
        if done.images or done.rejected:
            counts = f"{done.images} images served, {done.rejected} rejected"
            print(f"{counts}, {done.forward_equivalents:.2f} forwards per image: {done.output}")
        elif not done.stopped:
            has = f"{done.output} has all of {done.source}" + (
                " that is of this shard" if done.output != self.output else ""
            )
            print(f"nothing was left to do: {has}; for another strategy, use a new folder")
        for line in differences(done) if self.shard is not None else ():
            print(line)
        if done.stopped:
            print("stopped before the end; the same command goes on from here")
        elif not done.ends_streams:
            print("batches that are open at --until lack their later messages and are not written")
        return INTERRUPTED if done.stopped else 0

    def _plan(self) -> int:
        from adawise.console import paper
        from adawise.replay.plan import PlanRequest, plan_replay
        from adawise.replay.show_plan import show

        assert self.plan is not None
        assert self.recording is not None
        show(
            plan_replay(
                PlanRequest(
                    recording=self.recording,
                    output=self.output,
                    shards=self.plan,
                    from_time=self.from_time,
                    until=self.until,
                    streams=self.streams,
                    skip_forgotten=self.skip_forgotten,
                    live_root=self.settings.sink.root,
                )
            ),
            self.recording,
            paper(),
        )
        return 0


def differences(done: ReplayResult) -> Iterator[str]:
    """Yield what shards may have otherwise than a whole replay, and how much of it there was."""
    if done.passed_by:
        yield f"{counted(done.passed_by, 'message')} of other shards were read and not decoded"
    if done.closed_early:
        batches = counted(done.closed_early, "batch", "batches")
        yield f"{batches} closed early for lack of memory, as no other replay need do; raise limits.inflight_mib"
    if done.late:
        cameras = f"in this run, {counted(done.late, 'camera')}"
        yield f"{cameras} sent a backlog more than search.forget_after_s late; a whole replay may let them start anew"
