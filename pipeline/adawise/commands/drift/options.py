"""The command that says how alpha drifted, and whether adapting it helped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import AliasChoices, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.commands.command import Command, all_but, json_flag
from adawise.settings.group import FilePath, Location, Text
from adawise.settings.moments import MOMENT_SCHEMA, Moment


class DriftCommand(Command):
    """Say when, on which camera and how far alpha moved, what else changed then, and whether adapting it helped.

    Reads what a worker or a replay wrote, and changes nothing. -o writes one HTML file that opens offline. With labels
    what was served is compared with zero-shot, fine-tuned, alpha 0.5 and the best fixed alpha; without them there are
    estimates. Needs the extra `report` (pip install 'adawise[report]').
    """

    name = "drift"
    runs = "drift.run:drift"
    groups = ("model.card", "model.classes", "search.objective", *all_but("decode", "threads"), "log")
    examples = (
        ("the last day, in the terminal", "drift runs/yard --since 1d"),
        ("a page, with frames of a recording and labels", "drift runs/yard -o yard.html --recording recordings/yard"),
        ("for a nightly job: code 3 if a camera drifted", "drift runs/yard --since 1d --fail-if 'drift>0.2' --json"),
        ("against what another alpha would have served", "drift runs/yard --against runs/half --labels labels.csv"),
    )

    root: CliPositionalArg[Location] = Field(description="folder or s3://BUCKET/PREFIX that a worker wrote")
    output: FilePath | None = Field(
        default=None,
        validation_alias=AliasChoices("output", "o"),
        description="HTML file to write; it is replaced if it is there",
        json_schema_extra={"metavar": "FILE"},
    )
    streams: Text | None = Field(
        default=None, description="cameras, separated by commas; none: all", json_schema_extra={"metavar": "A,B"}
    )
    since: Moment | None = Field(default=None, description="nothing before it", json_schema_extra=MOMENT_SCHEMA)
    until: Moment | None = Field(default=None, description="nothing from it on", json_schema_extra=MOMENT_SCHEMA)
    smallest: float = Field(default=0.1, gt=0, le=1, description="smallest change of alpha that is looked for")
    recording: FilePath | None = Field(
        default=None,
        description="recording of the same topic, for frames before and after a change",
        json_schema_extra={"metavar": "FOLDER"},
    )
    labels: Location | None = Field(
        default=None,
        description="labels that came later: a CSV or Parquet file with label and row_id or stream_id and captured_at; "
        "none: those under ROOT and those that the producer sent",
        json_schema_extra={"metavar": "FILE"},
    )
    label_within: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="seconds that a label's captured_at may be away from its frame's; 0: exactly that time",
    )
    against: Text | None = Field(
        default=None,
        description="outputs of replays of the same images by other alphas, separated by commas",
        json_schema_extra={"metavar": "ROOTS"},
    )
    plots: FilePath | None = Field(
        default=None,
        description="folder for figures as PNG and SVG: all cameras, the eight that drifted most, if it helped",
        json_schema_extra={"metavar": "FOLDER"},
    )
    fail_if: Text | None = Field(
        default=None,
        description="end with code 3 if a camera is beyond one of these limits, separated by commas",
        json_schema_extra={"metavar": "LIMITS"},
    )
    as_json: CliToggleFlag[bool] = json_flag("print what was found as JSON")

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """No model is loaded; the card and the objective only say what is normal."""
        return frozenset({"log"})

    @classmethod
    @override
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """A limit that is none."""
        from adawise.drift.limits import parse_limit

        for part in parts(options.get("fail_if")) or ():
            try:
                parse_limit(part)
            except ValueError as error:
                yield "fail_if", str(error)


def parts(text: str | None) -> tuple[str, ...] | None:
    """What commas separate; None for None."""
    return None if text is None else tuple(part.strip() for part in text.split(","))
