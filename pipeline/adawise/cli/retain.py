"""The command `retain`, which removes what was written long ago."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import Command, json_flag
from adawise.settings.group import Location
from adawise.settings.recording import DAYS_SCHEMA, Days


class RetainCommand(Command):
    """Remove old output from an output folder: print what would be removed, or remove it with --yes.

    It removes whole files of days (UTC) that ended longer ago than --keep: segments, traces and compacted files, but
    never the end of a chain. First a claim under `_retained` records where each chain begins from then on, which hides
    the files from readers and shows verify and repair that they are not lost. Workers, readers and `compact` may run
    meanwhile; if it is interrupted, the next call completes it. A worker does the same with sink.keep. Labels that came
    later are kept.
    """

    name = "retain"
    examples = (
        ("show what would be removed", "retain runs/yard --keep 400d"),
        ("run it every night", "retain s3://bucket/yard --keep 400d --yes"),
    )

    root: CliPositionalArg[Location] = Field(description="output folder or s3://BUCKET/PREFIX of a worker")
    keep: Days = Field(description="age up to which everything is kept, at least a day", json_schema_extra=DAYS_SCHEMA)
    yes: CliToggleFlag[bool] = Field(default=False, description="remove it")
    as_json: CliToggleFlag[bool] = json_flag("print what is removed as JSON")

    @override
    def call(self) -> int:
        """Return 0. Of several chains that are damaged, all are named at the end; the others are done."""
        from adawise.console import print_json, print_text, progress
        from adawise.errors import ChainError
        from adawise.output.compaction.retain import retain
        from adawise.output.near import open_output
        from adawise.text import as_size

        root, removes = self.root, self.yes
        store = open_output(root)
        with progress("removed" if removes else "found", unit="files") as bar:
            done = retain(store, self.keep, removes=removes, advance=bar.advance)
        before, found = done.before, done.found
        if self.as_json:
            partitions = [
                {
                    "topic": what.tp.topic,
                    "partition": what.tp.partition,
                    "begins": what.name.first,
                    "files": what.files,
                    "rows": what.rows,
                    "bytes": what.size_bytes,
                    "since_day": what.since_day,
                    "until_day": what.until_day,
                }
                for what in found
            ]
            print_json({"root": root, "before": before, "removed": removes, "partitions": partitions})
        else:
            for what in found:
                print_text(
                    f"{what.tp}: {what.files} files, {what.rows} rows, {as_size(what.size_bytes)}, committed "
                    f"{what.since_day} to {what.until_day}; "
                    f"it {'begins' if removes else 'would begin'} at offset {what.name.first}"
                )
            files, rows, size = (sum(getattr(what, name) for what in found) for name in ("files", "rows", "size_bytes"))
            total = f"{files} files of {len(found)} partitions, {rows} rows, {as_size(size)}, committed before {before}"
            if not found:
                print_text(f"{root}: nothing that was committed before {before} can be removed")
            elif removes:
                print_text(f"{root}: removed {total}")
            else:
                print_text(f"{root}: would remove {total}; nothing was changed; to remove it, add --yes")
        if done.damaged:
            raise ChainError("; ".join(map(str, done.damaged)))
        return 0
