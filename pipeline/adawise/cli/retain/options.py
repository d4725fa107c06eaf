"""The options of `adawise retain`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag

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
    runs = "adawise.cli.retain.run:retain"
    examples = (
        ("show what would be removed", "retain runs/yard --keep 400d"),
        ("run it every night", "retain s3://bucket/yard --keep 400d --yes"),
    )

    root: CliPositionalArg[Location] = Field(description="output folder or s3://BUCKET/PREFIX of a worker")
    keep: Days = Field(description="age up to which everything is kept, at least a day", json_schema_extra=DAYS_SCHEMA)
    yes: CliToggleFlag[bool] = Field(default=False, description="remove it")
    as_json: CliToggleFlag[bool] = json_flag("print what is removed as JSON")
