"""The command that says how alpha drifted, and whether adapting it helped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import AliasChoices, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.commands.command import LABEL_WITHIN, LABELS, ROOTS_SCHEMA, Command, Roots, all_but, json_flag
from adawise.settings.group import FilePath, Location, Text
from adawise.settings.moments import MOMENT_SCHEMA, Moment
from adawise.settings.recording import DAYS_SCHEMA, Days


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
        (
            "for a nightly job: code 3 if something happened that the last 28 days do not know",
            "drift runs/yard --since 1d --baseline yard.baseline --fail-if 'events>0' --json",
        ),
        ("the same, told to whom alerts go", "drift runs/yard --since 1d --alertmanager http://127.0.0.1:9093"),
        (
            "of cameras in two countries",
            "drift runs/yard --since 1d --baseline yard.baseline --time-zone Europe/Berlin,osaka-*=Asia/Tokyo",
        ),
        ("of cameras that moved to another cluster on the way", "drift runs/yard runs/yard-2 -o yard.html"),
        ("against what another alpha would have served", "drift runs/yard --against runs/half --labels labels.csv"),
    )

    root: CliPositionalArg[Roots] = Field(
        description="folder or s3://BUCKET/PREFIX that a worker wrote, or several that are taken for one",
        json_schema_extra=ROOTS_SCHEMA,
    )
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
    reference: Days | None = Field(
        default=None,
        description="how long before --since is learned from (daily cycles, noise, mixes of classes), while what is "
        "told is of --since on; none: nothing, or 28d for a new --baseline",
        json_schema_extra=DAYS_SCHEMA,
    )
    baseline: FilePath | None = Field(
        default=None,
        description="file that keeps what was learned, so that only what came since is read: made if it is not there, "
        "and brought up to date",
        json_schema_extra={"metavar": "FILE"},
    )
    time_zone: Text | None = Field(
        default=None,
        description="zone whose clocks days and nights go by, so that they stay what they are when summer time begins: "
        "one for all cameras, and CAMERA=ZONE for some (names with wildcards), separated by commas; none: UTC",
        json_schema_extra={"metavar": "ZONES"},
    )
    known: FilePath | None = Field(
        default=None,
        description="TOML file of maintenance windows and of events that were seen to: [[known]] tables with why, "
        "since and until or daily (by --time-zone, or a time_zone of its own), streams, measures; these are told and "
        "no alarm",
        json_schema_extra={"metavar": "FILE"},
    )
    smallest: float = Field(default=0.1, gt=0, le=1, description="smallest change of alpha that is looked for")
    recording: FilePath | None = Field(
        default=None,
        description="recording of the same topic, for frames before and after a change",
        json_schema_extra={"metavar": "FOLDER"},
    )
    labels: Location | None = LABELS
    label_within: float = LABEL_WITHIN
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
    alertmanager: Text | None = Field(
        default=None,
        description="address of an Alertmanager that gets an alert for each incident that is more than noted",
        json_schema_extra={"metavar": "URL"},
    )
    as_json: CliToggleFlag[bool] = json_flag("print what was found as JSON")

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """No model is loaded; the card and the objective only say what is normal."""
        return frozenset({"log"})

    @override
    def call(self) -> int:
        """Analyse; whether the roots are outputs is seen before the analysis is loaded, which takes seconds."""
        from adawise.sink.near import expect_outputs

        expect_outputs((*self.root, *(parts(self.against) or ())))
        return super().call()

    @classmethod
    @override
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """A limit or a time zone that is none, and something to learn from without what is to be judged."""
        from adawise.drift.clocks import parse_clocks
        from adawise.drift.limits import parse_limit

        for name in ("reference", "baseline"):
            if options.get(name) is not None and options.get("since") is None:
                yield name, "expected --since beside it: what was before that is learned from"
        if options.get("alertmanager") is not None:
            from adawise.commands.drift.alertmanager import url_problems

            if options.get("since") is None:
                yield "alertmanager", "expected --since beside it: what was before that is no news"
            for problem in url_problems(options["alertmanager"]):
                yield "alertmanager", problem

        try:
            parse_clocks(parts(options.get("time_zone") or None) or ())
        except ValueError as error:
            yield "time_zone", str(error)

        for part in parts(options.get("fail_if")) or ():
            try:
                parse_limit(part)
            except ValueError as error:
                yield "fail_if", str(error)


def parts(text: str | None) -> tuple[str, ...] | None:
    """What commas separate; None for None."""
    return None if text is None else tuple(part.strip() for part in text.split(","))
