"""The options of `adawise compact` and `adawise files`, for the many small files of a long run."""

from __future__ import annotations

from contextlib import suppress
from datetime import date
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag

from adawise.cli.command import ROOTS_SCHEMA, Command, Roots, json_flag
from adawise.settings.group import Location
from adawise.settings.recording import seconds_of

_HOUR_S = 3_600.0


def _delete_after_s(value: object) -> float:
    """Return seconds. A bare number is in hours, as it was up to 0.2. It is to be refused after the next release."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value) * _HOUR_S
    return seconds_of(value)


class CompactCommand(Command):
    """Make large files, sorted by camera and time, of the small segments of past days, so that queries stay fast.

    They are made under `compacted/`, beside the segments, while workers write on. A file becomes visible to readers
    that go by `adawise files` or by views.sql (DuckDB), which is written into the folder, in the same moment in which
    its segments become invisible: each row is there once, always. A pattern as predictions/**/*.parquet finds the
    segments alone, and every row until they are deleted. Interrupted, it goes on where it was.
    """

    name = "compact"
    runs = "adawise.cli.compact.run:compact"
    examples = (
        ("what would be done", "compact runs/yard --dry-run"),
        ("every night", "compact s3://bucket/yard --delete-after 7d"),
    )

    root: CliPositionalArg[Location] = Field(description="folder or s3://BUCKET/PREFIX that a worker wrote")
    before: date | None = Field(
        default=None,
        description="only segments committed before this day (UTC); none: before today",
        json_schema_extra={"metavar": "DAY", "expected": "a day as 2026-11-25"},
    )
    max_rows: int = Field(
        default=262_144,
        ge=1,
        le=16_777_216,
        description="rows of a file; memory is some 1.5 KB for each",
    )
    delete_after: Annotated[float, BeforeValidator(_delete_after_s)] | None = Field(
        default=None,
        ge=_HOUR_S,
        le=87_600 * _HOUR_S,
        description="delete segments so long after their file was made, except the last of each; longer than a query "
        "takes or a worker may stand still; none: keep all",
        json_schema_extra={"metavar": "TIME", "expected": "an hour or more, such as 24h or 7d"},
    )
    dry_run: CliToggleFlag[bool] = Field(default=False, description="say what would be done, and change nothing")
    as_json: CliToggleFlag[bool] = json_flag("print what was done as JSON")


class FilesCommand(Command):
    """List the files that together hold each row once, one a line, for Polars, Spark and the like.

    Compacted files, and the segments that none of them stands for. Of several folders all of them; two that have the
    same rows are refused. It changes nothing.
    """

    name = "files"
    runs = "adawise.cli.compact.run:files"
    examples = (
        ("of predictions", "files runs/yard"),
        ("of traces, for another program", "files s3://bucket/yard --table traces --json"),
        ("of a camera that moved to another cluster", "files runs/yard runs/yard-2"),
    )

    root: CliPositionalArg[Roots] = Field(
        description="folder or s3://BUCKET/PREFIX that a worker wrote, or several", json_schema_extra=ROOTS_SCHEMA
    )
    table: Literal["predictions", "traces"] = Field(default="predictions", description="one row an image, or a batch")
    as_json: CliToggleFlag[bool] = json_flag("print a JSON list")
