"""The command `retain`, which removes what was written long ago."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import Command, json_flag
from adawise.settings.group import Location
from adawise.settings.recording import DAYS_SCHEMA, Days


class RetainCommand(Command):
    """Remove what was committed long ago from an output folder: say what would go, or, with --yes, remove it.

    Whole files go, of the days (UTC) that are over for that long: segments, traces, and what compaction made of them;
    never the end of a chain. A claim under `_retained` says first where each chain begins from then on, so that verify,
    repair and readers know it from a file that was lost; from that moment on nobody sees what goes. Workers, readers
    and `compact` may run beside it, and it may be interrupted: the next call ends it. A worker does the same with
    sink.keep. Labels that came later stay.
    """

    name = "retain"
    examples = (
        ("what would go", "retain runs/yard --keep 400d"),
        ("every night", "retain s3://bucket/yard --keep 400d --yes"),
    )

    root: CliPositionalArg[Location] = Field(description="folder or s3://BUCKET/PREFIX that a worker wrote")
    keep: Days = Field(description="time for which everything is kept, at least a day", json_schema_extra=DAYS_SCHEMA)
    yes: CliToggleFlag[bool] = Field(default=False, description="remove it")
    as_json: CliToggleFlag[bool] = json_flag("print what goes as JSON")

    @override
    def call(self) -> int:
        """Return 0. Of several chains that are damaged, all are named at the end; the others are done."""
        from adawise.console import print_json, progress, say
        from adawise.errors import ChainError
        from adawise.output.compaction.retain import retain
        from adawise.output.near import open_output
        from adawise.text import as_size

        root, removes = self.root, self.yes
        with progress("removed" if removes else "found", unit="files") as bar:
            done = retain(open_output(root), self.keep, removes=removes, advance=bar.advance)
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
                say(
                    f"{what.tp}: {what.files} files, {what.rows} rows, {as_size(what.size_bytes)}, committed "
                    f"{what.since_day} to {what.until_day}; "
                    f"it {'begins' if removes else 'would begin'} at offset {what.name.first}"
                )
            files, rows, size = (sum(getattr(what, name) for what in found) for name in ("files", "rows", "size_bytes"))
            total = f"{files} files of {len(found)} partitions, {rows} rows, {as_size(size)}, committed before {before}"
            if not found:
                say(f"{root}: nothing was committed before {before} that can go")
            elif removes:
                say(f"{root}: removed {total}")
            else:
                say(f"{root}: would remove {total}; nothing was changed; to do it: add --yes")
        if done.damaged:
            raise ChainError("; ".join(map(str, done.damaged)))
        return 0
