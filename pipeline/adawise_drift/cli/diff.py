"""The command `diff`, which proves two runs equal, or shows where they differ."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import FOUND, LABEL_WITHIN, LABELS, Command, json_flag
from adawise.settings.group import Location
from adawise.settings.recording import distinct_names
from adawise.text import separated


class DiffCommand(Command):
    """Prove that two runs over the same messages are equal, bit by bit, or show where and by how much they differ.

    It first lists the settings that differ, with both values. It compares rows by their identity and batches by their
    first message, over all that both runs have read. For each stream it shows the first batch that differs and its
    first difference, the distance of the alphas, the predictions that changed, and the agreement of classes. With
    labels it shows which run is right more often on the same images, with an interval. Exits with code 0 if the runs
    are equal, 3 if not. It changes nothing.
    """

    name = "diff"
    finds = True
    examples = (
        ("check that a replay equals the live run", "diff runs/yard runs/again"),
        ("print JSON, and count rows that only one run has", "diff runs/yard runs/again --whole --json"),
        ("see which run is better, by labels that came later", "diff runs/yard runs/grid --labels labels.csv"),
        ("compare two cameras", "diff runs/yard s3://bucket/grid --streams gate,hall"),
        ("compare a run that continued under another root", "diff runs/yard,runs/yard-2 runs/again"),
    )

    root_a: CliPositionalArg[Location] = Field(
        description="folder or s3://BUCKET/PREFIX of a run, or several that together are one run, separated by commas"
    )
    root_b: CliPositionalArg[Location] = Field(description="folder or s3://BUCKET/PREFIX of the other run, or several")
    streams: Annotated[str, AfterValidator(distinct_names)] | None = Field(
        default=None,
        description="only these streams; none: all",
        json_schema_extra={"metavar": "A,B", "expected": "names separated by commas, each once"},
    )
    labels: Location | None = LABELS
    label_within: float = LABEL_WITHIN
    whole: CliToggleFlag[bool] = Field(
        default=False, description="count rows that only one run has as differences, even where the other did not read"
    )
    as_json: CliToggleFlag[bool] = json_flag("print what was found as JSON")

    @override
    def call(self) -> int:
        """Compare two runs and print the result; return 0 if they are equal, else 3."""
        from adawise.console import paper, print_json
        from adawise.labels.compare.compare import compare, split_roots
        from adawise_drift.show_diff import show

        found = compare(
            split_roots(self.root_a),
            split_roots(self.root_b),
            separated(self.streams),
            labels=self.labels,
            label_within_us=round(self.label_within * 1e6),
        )
        if self.as_json:
            print_json(found.as_json())
        else:
            show(found, paper())
        return FOUND if found.differs or (self.whole and not found.overlaps_wholly) else 0
