"""The command `drift`, which says when and how far alpha moved, and whether adapting helped."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import FOUND, LABEL_WITHIN, LABELS, ROOTS_SCHEMA, Command, Roots, all_but, json_flag, optional
from adawise.settings.group import FilePath, Location, Text
from adawise.settings.moments import MOMENT_SCHEMA, Moment
from adawise.settings.recording import DAYS_SCHEMA, Days


class DriftCommand(Command):
    """Show when, on which camera and how far alpha moved, what else changed then, and whether adapting it helped.

    It reads the output of a worker or a replay, and changes nothing. -o writes one HTML file that opens offline. With
    labels it compares the served predictions with zero-shot, fine-tuned, alpha 0.5 and the best fixed alpha; without
    labels it estimates. Needs the extra `report` (pip install 'adawise[report]').
    """

    name = "drift"
    finds = True
    groups = (
        *("model.card", "model.classes", "search.objective", "scene.shortlists"),
        *(*all_but("decode", "threads"), "log"),
    )
    examples = (
        ("show the last day in the terminal", "drift runs/yard --since 1d"),
        (
            "write a page, with frames of a recording and labels",
            "drift runs/yard -o yard.html --recording recordings/yard",
        ),
        (
            "exit with code 3 in a nightly job if something new to the last 28 days happened",
            "drift runs/yard --since 1d --baseline yard.baseline --fail-if 'events>0' --json",
        ),
        ("send what happened to Alertmanager", "drift runs/yard --since 1d --alertmanager http://127.0.0.1:9093"),
        (
            "report cameras in two countries",
            "drift runs/yard --since 1d --baseline yard.baseline --time-zone Europe/Berlin,osaka-*=Asia/Tokyo",
        ),
        ("report cameras that moved to another cluster meanwhile", "drift runs/yard runs/yard-2 -o yard.html"),
        (
            "compare with what another alpha would have served",
            "drift runs/yard --against runs/half --labels labels.csv",
        ),
    )

    root: CliPositionalArg[Roots] = Field(
        description="output folder or s3://BUCKET/PREFIX of a worker, or several that are read as one",
        json_schema_extra=ROOTS_SCHEMA,
    )
    output: FilePath | None = optional("HTML file to write; an existing one is replaced", "output", "o", metavar="FILE")
    streams: Text | None = optional("cameras, separated by commas; none: all", metavar="A,B")
    since: Moment | None = optional("only what happened from this time on", **MOMENT_SCHEMA)
    until: Moment | None = optional("only what happened before this time", **MOMENT_SCHEMA)
    reference: Days | None = optional(
        "time before --since to learn from (daily cycles, noise, mixes of classes); only what happened from --since on "
        "is reported; none: nothing, or 28d for a new --baseline", **DAYS_SCHEMA,
    )  # fmt: skip
    baseline: FilePath | None = optional(
        "file that stores what was learned, so that only newer output is read: created if missing, and updated",
        metavar="FILE",
    )
    time_zone: Text | None = optional(
        "time zone of days and nights, so that daily cycles follow summer time: one for all cameras, and "
        "CAMERA=ZONE for some (names with wildcards), separated by commas; none: UTC", metavar="ZONES",
    )  # fmt: skip
    known: FilePath | None = optional(
        "TOML file of maintenance windows and known events: [[known]] tables with why, since and until or daily (by "
        "--time-zone, or their own time_zone), streams, measures; these are reported without an alarm",
        metavar="FILE",
    )
    smallest: float = Field(default=0.1, gt=0, le=1, description="smallest change of alpha to look for")
    recording: FilePath | None = optional(
        "recording of the same topic, for frames before and after a change", metavar="FOLDER"
    )
    labels: Location | None = LABELS
    label_within: float = LABEL_WITHIN
    least_accuracy: Annotated[float, Field(gt=0, lt=1)] | None = optional(
        "accuracy that every camera is held against by the labels of `adawise sample`; none: that of the first 28 days "
        "of each, less .02", metavar="ACCURACY",
    )  # fmt: skip
    against: Text | None = optional(
        "outputs of replays of the same images by other alphas, separated by commas", metavar="ROOTS"
    )
    plots: FilePath | None = optional(
        "folder for figures as PNG and SVG: all cameras, the eight that drifted most, whether adapting helped",
        metavar="FOLDER",
    )
    fail_if: Text | None = optional(
        "exit with code 3 if a camera exceeds one of these limits, separated by commas", metavar="LIMITS"
    )
    alertmanager: Text | None = optional(
        "address of an Alertmanager that gets an alert for each incident above severity noted", metavar="URL"
    )
    as_json: CliToggleFlag[bool] = json_flag("print what was found as JSON")

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return the log's group alone: no model is loaded; card and objective only say what is normal."""
        return frozenset({"log"})

    @classmethod
    @override
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield options that lack --since, and invalid addresses, time zones and limits."""
        from adawise_drift.request import problems

        return problems(options)

    @override
    def call(self) -> int:
        """Analyse, then write, print and send what was found; return 3 if a camera is beyond a limit, else 0."""
        from adawise.app.prompts import read_lines
        from adawise.console import paper, print_json, progress
        from adawise.output.shards import expanded
        from adawise_drift.request import parse_request

        model, page = self.settings.model, self.output
        request = parse_request(
            {**dict(self), "root": tuple(expanded(self.root))},
            card=model.card,
            objective=self.settings.search.objective,
            classes=None if model.classes is None else read_lines(model.classes, "model.classes", "class name"),
            command=shlex.join(["adawise", *self.written_out()]),
        )
        if request.classes is not None:
            request = replace(request, shortlists=self._sizes(request.classes))
        from adawise_drift.analyse import analyse, finish
        from adawise_drift.show import show

        if self.recording is not None:
            from adawise_drift.example_frames import open_frames

            request = replace(request, frames=open_frames(str(self.recording), self.settings.decode))
        report = analyse(request, progress)
        if page is not None or self.plots is not None:
            from adawise_drift.page.write import write_files

            write_files(report, page, self.plots)
        if self.as_json:
            print_json({**report.as_json(), "page": None if page is None else str(page)})
        else:
            show(report, paper(), page)
        finish(request, report, self.alertmanager)
        return FOUND if any(report.beyond.values()) else 0

    def _sizes(self, classes: Sequence[str]) -> dict[str, int]:
        """Return the number of classes of each shortlist of the settings, by digest; none if they are of others."""
        from adawise.app.parts import shortlists
        from adawise.errors import SettingsError

        try:
            rules = shortlists(self.settings.scene, classes).rules
        except SettingsError:  # the doctor reports it; the analysis does without
            return {}
        return {listed.digest: len(listed.columns) for _, listed in rules if listed is not None}
