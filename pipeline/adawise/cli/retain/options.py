"""The options of `adawise retain`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag

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
    runs = "adawise.cli.retain.run:retain"
    examples = (
        ("what would go", "retain runs/yard --keep 400d"),
        ("every night", "retain s3://bucket/yard --keep 400d --yes"),
    )

    root: CliPositionalArg[Location] = Field(description="folder or s3://BUCKET/PREFIX that a worker wrote")
    keep: Days = Field(description="time for which everything is kept, at least a day", json_schema_extra=DAYS_SCHEMA)
    yes: CliToggleFlag[bool] = Field(default=False, description="remove it")
    as_json: CliToggleFlag[bool] = json_flag("print what goes as JSON")
