"""The options of `adawise demo`. Its work is in `adawise.demo`."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import CliToggleFlag
from typing_extensions import override

from adawise.cli.command import Command
from adawise.settings.group import FilePath


class DemoCommand(Command):
    """Show it at work: simulated cameras in changing weather, a small pair of models, a live table, a summary."""

    name = "demo"
    examples = (
        ("run for a minute", "demo"),
        ("show three days and nights: from the second on, cameras recognise most conditions", "demo --scenes nights"),
        ("run on Apache Kafka, and keep the output", "demo --broker kafka --output runs/demo --keep"),
    )

    broker: Literal["embedded", "kafka"] = Field(
        default="embedded", description="broker to start: the embedded one or Apache Kafka"
    )
    scenes: Literal["weather", "nights", "controls"] = Field(
        default="weather",
        description="what the cameras see: changing weather; the same day and night three times; or "
        "jumps of exposure, slow light, odd frames and a panning camera, which alpha "
        "should not follow",
    )
    seconds: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        description="seconds for which cameras send 10 images a second, in place of --images",
    )
    images: int | None = Field(
        default=None,
        ge=1,
        description="images of all cameras together; none: 3200, for nights 9600, for controls 6400",
    )
    output: FilePath | None = Field(
        default=None,
        validation_alias=AliasChoices("output", "o"),
        description="folder for the output; none: a new one under runs/",
        json_schema_extra={"metavar": "FOLDER"},
    )
    keep: CliToggleFlag[bool] = Field(default=False, description="keep the broker running at the end, until Ctrl-C")

    @override
    def call(self) -> int:
        """Run the demo."""
        from adawise.demo.main import run

        return run(**self.model_dump(exclude={"config", "settings"}))
