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
    """Merge the small segments of past days into large files, sorted by camera and time, so that queries stay fast.

    The files are written under `compacted/`, beside the segments, while workers go on. Readers that use
    `adawise files` or views.sql (DuckDB, written into the folder) switch from the segments to their file in one step,
    so that they see each row exactly once. A pattern such as predictions/**/*.parquet matches only segments, which
    have every row until they are deleted. If it is interrupted, the same command continues.
    """

    name = "compact"
    runs = "adawise.cli.compact.run:compact"
    examples = (
        ("show what would be done", "compact runs/yard --dry-run"),
        ("run it every night", "compact s3://bucket/yard --delete-after 7d"),
    )

    root: CliPositionalArg[Location] = Field(description="output folder or s3://BUCKET/PREFIX of a worker")
    before: date | None = Field(
        default=None,
        description="compact only segments committed before this day (UTC); none: before today",
        json_schema_extra={"metavar": "DAY", "expected": "a day such as 2026-11-25"},
    )
    max_rows: int = Field(
        default=262_144,
        ge=1,
        le=16_777_216,
        description="most rows of a file; each takes about 1.5 KB of memory",
    )
    delete_after: Annotated[float, BeforeValidator(_delete_after_s)] | None = Field(
        default=None,
        ge=_HOUR_S,
        le=87_600 * _HOUR_S,
        description="delete segments this long after they were compacted, except the last of each "
        "partition; choose more than a query takes or a worker may be stopped; none: keep "
        "all",
        json_schema_extra={"metavar": "TIME", "expected": "an hour or more, such as 24h or 7d"},
    )
    dry_run: CliToggleFlag[bool] = Field(default=False, description="print what would be done, and change nothing")
    as_json: CliToggleFlag[bool] = json_flag("print what was done as JSON")


class FilesCommand(Command):
    """List the files that together hold each row once, one a line, for Polars, Spark and similar tools.

    These are the compacted files and the segments that are not compacted. Several folders are listed together, and
    refused if two of them have the same rows. It changes nothing.
    """

    name = "files"
    runs = "adawise.cli.compact.run:files"
    examples = (
        ("list files of predictions", "files runs/yard"),
        ("list files of traces, as JSON", "files s3://bucket/yard --table traces --json"),
        ("list files of two roots, after cameras moved to another cluster", "files runs/yard runs/yard-2"),
    )

    root: CliPositionalArg[Roots] = Field(
        description="one or more output folders or s3://BUCKET/PREFIX of workers", json_schema_extra=ROOTS_SCHEMA
    )
    table: Literal["predictions", "traces"] = Field(
        default="predictions", description="predictions: a row for each image; traces: a row for each batch"
    )
    as_json: CliToggleFlag[bool] = json_flag("print a JSON list")
