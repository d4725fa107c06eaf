"""The commands `compact`, which makes few large files of many small ones, and `files`, which lists what to read."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import ROOTS_SCHEMA, Command, Roots, json_flag, optional
from adawise.settings.group import Location
from adawise.settings.recording import seconds_of

_HOUR_S = 3_600.0
_BYTES_A_ROW = 1024  # before compression; a file whose rows are longer (much metadata) has fewer of them


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
    examples = (
        ("show what would be done", "compact runs/yard --dry-run"),
        ("run it every night", "compact s3://bucket/yard --delete-after 7d"),
    )

    root: CliPositionalArg[Location] = Field(description="output folder or s3://BUCKET/PREFIX of a worker")
    before: date | None = optional(
        "compact only segments committed before this day (UTC); none: before today",
        metavar="DAY",
        expected="a day such as 2026-11-25",
    )
    max_rows: int = Field(
        default=262_144, ge=1, le=16_777_216, description="most rows of a file; each takes about 1.5 KB of memory"
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

    @override
    def call(self) -> int:
        """Compact every partition, delete what was compacted long enough ago, and return 0.

        A partition that is damaged ends it; those before it are done.
        """
        from adawise.console import print_json, print_text, progress
        from adawise.output.compaction import sql_views
        from adawise.output.compaction.compact import FileLimits, compact, planned
        from adawise.output.compaction.delete import delete_older
        from adawise.output.near import open_output
        from adawise.sink.files import data_keys
        from adawise.sink.walk import chains
        from adawise.text import as_size

        root, store, dry_run = self.root, open_output(self.root), self.dry_run
        limits = FileLimits(self.max_rows, self.max_rows * _BYTES_A_ROW, self.before or datetime.now(UTC).date())
        tps, make, made, deleted = sorted(chains(store)), planned if dry_run else compact, [], 0
        with progress("compacted", unit="rows") as bar:
            for file in (file for tp in tps for file in make(store, tp, limits)):
                made.append(file)
                bar.advance(file.rows)
                bar.note(f"{len(made)} files, {file.tp}")
        if self.delete_after is not None:
            with progress("deleted", unit="segments") as bar:
                for _ in delete_older(store, tps, timedelta(seconds=self.delete_after), dry_run=dry_run):
                    bar.advance()
                    deleted += 1
        if not dry_run:
            sql_views.write(store, root)
        names = ("segments", "rows", "bytes_before", "bytes_after")
        totals = {name: sum(getattr(file, name) for file in made) for name in names}
        to_read = len(data_keys(store))
        if self.as_json:
            files = [
                {"partition": str(file.tp), "file": str(file.name), "segments": file.segments, "rows": file.rows}
                for file in made
            ]
            counts = {**totals, "deleted": deleted, "files_to_read": to_read}
            print_json({"root": root, "dry_run": dry_run, "made": files, **counts})
            return 0
        for file in made if dry_run else ():
            print_text(f"{file.tp}: {file.segments} segments, {file.rows} rows -> {file.name}")
        before, after = as_size(totals["bytes_before"]), as_size(totals["bytes_after"])
        size = f" ({before} of segments -> {after} with traces)" if totals["bytes_after"] else ""
        what = f"{len(made)} files of {totals['segments']} segments, {totals['rows']} rows{size}"
        print_text(f"{root}: {'would make' if dry_run else 'made'} {what}")
        if deleted:
            print_text(f"{'would delete' if dry_run else 'deleted'} {deleted} segments that have been compacted")
        if not dry_run:
            how = f"list them with `adawise files {root}`, or use its views.sql in DuckDB"
            print_text(f"readers need {to_read} files of predictions: {how}")
        return 0


class FilesCommand(Command):
    """List the files that together hold each row once, one a line, for Polars, Spark and similar tools.

    These are the compacted files and the segments that are not compacted. Several folders are listed together, and
    refused if two of them have the same rows. It changes nothing.
    """

    name = "files"
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

    @override
    def call(self) -> int:
        """Print the files of a table under one or several roots, and return 0."""
        from adawise.console import print_json
        from adawise.output.near import open_output
        from adawise.output.read.several import check_disjoint
        from adawise.output.shards import expanded
        from adawise.sink.files import data_files

        roots = expanded(self.root)
        for root in roots:
            open_output(root)
        check_disjoint(roots)
        names = [name for root in roots for name in data_files(root, self.table)]
        if self.as_json:
            print_json(names)
        else:
            print("\n".join(names))  # unescaped, for scripts: `layout` accepts only some characters in a key
        return 0
