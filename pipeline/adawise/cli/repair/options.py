"""The options of `adawise repair`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag

from adawise.cli.command import Command
from adawise.settings.group import Location


class RepairCommand(Command):
    """Mend an output folder of which files were lost, moved or removed: say what would be done, or, with --yes, do it.

    Where segments are gone from the middle of a chain, a segment without rows takes their place, which says which
    offsets are lost, so that the chain holds again; the command that computes them once more is printed. A `_sink.json`
    or an origin that was removed is written again from the segments; traces that belong to no segment are moved to
    `_set_aside`, and missing ones derived. Nothing is overwritten, and workers may run beside it. Ends with code 3 if
    something is left to do.
    """

    name = "repair"
    runs = "adawise.cli.repair.run:repair"
    examples = (
        ("what would be done", "repair runs/output"),
        ("do it", "repair s3://bucket/yard --yes"),
    )

    root: CliPositionalArg[Location] = Field(description="folder or s3://BUCKET/PREFIX that a worker wrote")
    yes: CliToggleFlag[bool] = Field(default=False, description="do it")
