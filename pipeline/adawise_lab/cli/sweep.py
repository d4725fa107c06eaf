"""The command `adawise sweep`, which replays a recording with several settings and compares them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import LABEL_WITHIN, LABELS, Command, json_flag, optional
from adawise.settings.group import Location
from adawise.settings.recording import STREAMS_SCHEMA, StreamPatterns
from adawise.settings.tree import REPLAY_GROUPS
from adawise_lab.sweep.grid import parse_grid


def _grid(text: str) -> str:
    parse_grid(text)
    return text


class SweepCommand(Command):
    """Replay a recording with each combination of some settings, and compare what they serve.

    Each combination is a variant, and all of them are compared with the first: forwards per image, images with another
    label, and with labels the accuracy, with an interval on the same images. Shards are processes of their own. The
    same command goes on with a sweep that was stopped or killed, and repeats no shard that is finished.
    """

    name = "sweep"
    groups = REPLAY_GROUPS[:-1]
    examples = (
        (
            "compare four ways to search, two shards at a time",
            'sweep recordings/yard --grid "search.strategy=warm,grid search.price=.02,.03" -o runs/price --processes 2',
        ),
        (
            "see which is better by labels that came later",
            'sweep recordings/yard --grid "scene.prior=off,beside" -o runs/scene --labels labels.csv --json',
        ),
    )

    recording: CliPositionalArg[Location] = Field(description="folder or URL of a recording")
    grid: Annotated[str, AfterValidator(_grid)] = Field(
        description="settings and their values; every combination is a variant, and the first of all values the one "
        "that others are compared with",
        json_schema_extra={"metavar": '"NAME=A,B NAME=C,D"', "expected": "NAME=A,B ..., such as search.price=.02,.03"},
    )
    output: Location = Field(
        validation_alias=AliasChoices("output", "o"),
        description="new folder or s3://BUCKET/PREFIX, which gets a folder for each variant; a stopped sweep continues "
        "in its own",
        json_schema_extra={"metavar": "FOLDER"},
    )
    streams: StreamPatterns | None = optional("replay only these streams; none: all", **STREAMS_SCHEMA)
    shards: int = Field(
        default=1, ge=1, le=1000, description="shards of each variant, which can run at a time; cameras are not divided"
    )
    processes: int = Field(
        default=1, ge=1, le=256, description="shards that are replayed at a time; they share the cores between them"
    )
    labels: Location | None = LABELS
    label_within: float = LABEL_WITHIN
    as_json: CliToggleFlag[bool] = json_flag("print the figures of all variants and cameras as JSON")

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return no group: the grid may have what is missing, and each variant is checked."""
        del options
        return frozenset()

    @override
    def call(self) -> int:
        """Run what is left of the sweep and print the table; return 1 if a variant failed, 130 if it was stopped."""
        from adawise.app.signals import INTERRUPTED, stop_signals
        from adawise.console import paper, print_json, progress
        from adawise.labels.given import expect_labels
        from adawise_lab.sweep.run import SweepRequest, sweep
        from adawise_lab.sweep.table import figures, show

        variants = parse_grid(self.grid)
        request = SweepRequest(
            settings=self.settings,
            recording=self.recording,
            output=self.output,
            variants=variants,
            shards=self.shards,
            processes=self.processes,
            streams=self.streams,
        )
        if self.labels is not None:
            expect_labels(self.labels)
        with stop_signals() as stop:
            done = sweep(request, stop=stop, shown=lambda total: progress("replayed", total, "shards"))
        if done.stopped:
            print("stopped before the end; the same command goes on from here")
            return INTERRUPTED
        found = figures(
            self.recording,
            variants,
            done.roots,
            done.failed,
            labels=self.labels,
            within_us=round(self.label_within * 1e6),
        )
        if self.as_json:
            print_json(found.as_json())
        else:
            show(found, paper())
        return 1 if done.failed else 0
