"""The options of `adawise repair`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag

from adawise.cli.command import Command
from adawise.settings.group import Location


class RepairCommand(Command):
    """Repair an output folder whose files were lost, moved or removed: print what would be done, or do it with --yes.

    Segments missing from the middle of a chain are replaced by one without rows that records the lost offsets, so that
    the chain is whole again; the command that computes the rows again is printed. A `_sink.json` or an origin that was
    removed is rebuilt from the segments; traces without a segment are moved to `_set_aside`, and missing ones derived.
    Nothing is overwritten, and workers may run meanwhile. Exits with code 3 if something is left to do.
    """

    name = "repair"
    runs = "adawise.cli.repair.run:repair"
    examples = (
        ("show what would be done", "repair runs/output"),
        ("repair it", "repair s3://bucket/yard --yes"),
    )

    root: CliPositionalArg[Location] = Field(description="output folder or s3://BUCKET/PREFIX of a worker")
    yes: CliToggleFlag[bool] = Field(default=False, description="repair it")
