"""The command that stores raw messages: record. Options and one call."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field

from pipeline.cli.command import Command
from pipeline.settings.group import FilePath


class Record(Command):
    """Store the raw messages of a topic as Parquet, to be replayed. Nothing is decoded and no group is joined."""

    name = "record"
    groups = ("kafka", "log")
    examples = (
        ("ten minutes from now on", "record --output recordings/yard --from latest --max-seconds 600"),
        ("all that the topic still has", "record --output recordings/yard"),
    )

    output: FilePath = Field(
        validation_alias=AliasChoices("output", "o"),
        description="folder for the files; one that already holds a recording of this topic is continued",
        json_schema_extra={"metavar": "FOLDER"},
    )
    origin: Literal["earliest", "latest"] = Field(
        default="earliest", validation_alias=AliasChoices("from"), description="where to begin"
    )
    max_messages: int | None = Field(default=None, ge=1, description="messages after which to end")
    max_seconds: float | None = Field(default=None, gt=0, description="seconds after which to end")
    max_bytes: int | None = Field(default=None, ge=1, description="bytes of messages after which to end")

    def call(self) -> int:
        """Record."""
        from pipeline.wiring import record

        return record(
            self.settings,
            output=self.output,
            origin=self.origin,
            max_messages=self.max_messages,
            max_seconds=self.max_seconds,
            max_bytes=self.max_bytes,
        )
