"""The options of `adawise demo`. Its work is in `adawise.demo`."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import CliToggleFlag
from typing_extensions import override

from adawise.cli.command import Command
from adawise.settings.group import FilePath


class DemoCommand(Command):
    """See it work: simulated cameras in changing weather, a small pair of models, a table that moves, a summary."""

    name = "demo"
    examples = (
        ("a minute", "demo"),
        ("three days and nights: the second time, cameras know most conditions again", "demo --scenes nights"),
        ("on Apache Kafka, and keep what is written", "demo --broker kafka --output runs/demo --keep"),
    )

    broker: Literal["embedded", "kafka"] = Field(
        default="embedded", description="broker to start: the embedded one or Apache Kafka"
    )
    scenes: Literal["weather", "nights", "controls"] = Field(
        default="weather",
        description="what the cameras see: weather that comes and goes; the same day and night three times; or "
        "exposure that jumps, slow light, odd frames and a camera that pans, which alpha had better not follow",
    )
    seconds: float | None = Field(
        default=None, gt=0, le=86_400, description="as many images as cameras at 10 a second take in so many seconds"
    )
    images: int | None = Field(
        default=None,
        ge=1,
        description="images of all cameras together; none: 3200, of nights 9600, of controls 6400",
    )
    output: FilePath | None = Field(
        default=None,
        validation_alias=AliasChoices("output", "o"),
        description="folder for what is written; none: a new one under runs/",
        json_schema_extra={"metavar": "FOLDER"},
    )
    keep: CliToggleFlag[bool] = Field(default=False, description="keep the broker running at the end, until Ctrl-C")

    @override
    def call(self) -> int:
        """Run the demo."""
        from adawise.demo.main import run

        return run(**self.model_dump(exclude={"config", "settings"}))
