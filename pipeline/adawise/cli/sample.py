"""The command `sample`, which draws served images to be labelled, with known probabilities."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import Command, json_flag, optional
from adawise.settings.group import FilePath, Location
from adawise.settings.moments import MOMENT_SCHEMA, Moment
from adawise.settings.recording import distinct_names


class SampleCommand(Command):
    """Draw served images of each camera and day with known probabilities, and write a CSV file a day to be labelled.

    People write what an image shows into the column `label` and leave the other columns as they are; what was served is
    only there as a digest. Then `adawise drift ROOT --labels FOLDER` measures accuracy with a guarantee. A day (UTC) is
    drawn once, when it is over and an image of a later day was served: run it every night with the same folder, and
    days that have a file stay as they are. Needs the extra `report` (pip install 'adawise[report]').
    """

    name = "sample"
    examples = (
        ("draw 20 images of each camera and day, every night", "sample runs/yard --per-day 20 -o yard-sample"),
        ("draw unsure images more often", "sample runs/yard -o yard-sample --by confidence"),
    )

    root: CliPositionalArg[Location] = Field(description="output folder or s3://BUCKET/PREFIX of a worker")
    output: FilePath = Field(
        validation_alias=AliasChoices("output", "o"),
        description="folder of the sample, with a file for each day; files in it are never replaced",
        json_schema_extra={"metavar": "FOLDER"},
    )
    per_day: int = Field(default=20, ge=1, le=10_000, description="images of each camera and day")
    by: Literal["uniform", "confidence"] = Field(
        default="uniform",
        description="all images alike, or unsure ones up to twice as often and none below .75 as often",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="what decides the draw; it is written into the files")
    streams: Annotated[str, AfterValidator(distinct_names)] | None = Field(
        default=None,
        description="only these streams; none: all",
        json_schema_extra={"metavar": "A,B", "expected": "names separated by commas, each once"},
    )
    since: Moment | None = optional("only days from this time on; none: all that have no file", **MOMENT_SCHEMA)
    as_json: CliToggleFlag[bool] = json_flag("print what was drawn as JSON")

    @override
    def call(self) -> int:
        """Return 0, also if no day had to be drawn."""
        from datetime import UTC, datetime

        from adawise.console import print_json, print_text
        from adawise.labels.sample.design import Design
        from adawise.labels.sample.draw import draw_days
        from adawise.output.near import expect_outputs
        from adawise.text import counted, separated

        expect_outputs([self.root])
        design = Design(self.per_day, self.by, self.seed)
        streams, now = separated(self.streams), datetime.now(UTC)
        done = draw_days(self.root, self.output, design, streams=streams, since=self.since, now=now)
        if self.as_json:
            print_json(
                {
                    "folder": str(self.output),
                    "files": [str(path) for path in done.files],
                    "images": done.images,
                    "cameras": done.cameras,
                    "kept": done.kept,
                    "ahead": done.ahead,
                }
            )
            return 0
        for path in done.files:
            print_text(str(path))
        drawn = f"{counted(done.images, 'image')} of {counted(done.cameras, 'camera')} drawn"
        print_text(f"{drawn} for {counted(len(done.files), 'day')}; {counted(done.kept, 'day')} had a file already")
        if done.ahead:
            images = counted(done.ahead, "image")
            print_text(
                f"{images} of a time in the future end no day yet; if it is far, correct the clocks of the cameras"
            )
        return 0
