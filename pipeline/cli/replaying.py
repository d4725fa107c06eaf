"""The command that replays: the worker on a recording.

Options and one call. Whatever is heavy is imported by the call, so that help is quick.
"""

from __future__ import annotations

from pydantic import AliasChoices, Field
from pydantic_settings import CliPositionalArg

from pipeline.cli.command import Command
from pipeline.settings.group import FilePath, Location

REPLAY_GROUPS = ("model", "search", "batch", "decode", "predict", "sink", "limits", "log")


class Replay(Command):
    """Run the worker on a recording: the same bytes through the same or another strategy.

    With the same settings the same alphas and predictions come out, bit by bit.
    """

    name = "replay"
    groups = REPLAY_GROUPS
    examples = (
        ("again as it was", "replay recordings/yard -o runs/again"),
        ("what a fixed alpha would have done", "replay recordings/yard -o runs/half --search.strategy fixed"),
    )

    recording: CliPositionalArg[FilePath] = Field(description="folder that `adawise record` wrote")
    output: Location = Field(
        validation_alias=AliasChoices("output", "o"),
        description="new folder or s3://BUCKET/PREFIX for predictions and traces, in place of sink.root; a replay that "
        "was stopped goes on in its own",
        json_schema_extra={"metavar": "FOLDER"},
    )

    def call(self) -> int:
        """Replay."""
        from pipeline.wiring import replay

        return replay(self.settings, recording=self.recording, output=self.output)
