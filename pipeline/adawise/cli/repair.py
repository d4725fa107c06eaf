"""The command `repair`, which mends an output folder whose files were lost."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import Command
from adawise.settings.group import Location

FOUND = 3


class RepairCommand(Command):
    """Mend an output folder of which files were lost, moved or removed: say what would be done, or, with --yes, do it.

    Where segments are gone from the middle of a chain, a segment without rows takes their place, which says which
    offsets are lost, so that the chain holds again; the command that computes them once more is printed. A `_sink.json`
    or an origin that was removed is written again from the segments; traces that belong to no segment are moved to
    `_set_aside`, and missing ones derived. Nothing is overwritten, and workers may run beside it. Ends with code 3 if
    something is left to do.
    """

    name = "repair"
    examples = (
        ("what would be done", "repair runs/output"),
        ("do it", "repair s3://bucket/yard --yes"),
    )

    root: CliPositionalArg[Location] = Field(description="folder or s3://BUCKET/PREFIX that a worker wrote")
    yes: CliToggleFlag[bool] = Field(default=False, description="do it")

    @override
    def call(self) -> int:
        """Return 0 if nothing is left to do, else 3."""
        from adawise.console import say
        from adawise.output.near import no_output
        from adawise.output.verify.repair import plan
        from adawise.sink.claims import read_sink_id
        from adawise.sink.files import segment_keys
        from adawise.store.store import open_store
        from adawise.text import counted

        root, store = self.root, open_store(self.root)
        if read_sink_id(store) is None and not segment_keys(store):
            raise no_output(root)
        found = plan(store)
        for step in found.steps:
            if self.yes:
                step.do()
            say(f"{'done' if self.yes else 'would'}: {step.what}")
            if step.again:
                say(f"       {step.again}")
        for lost in found.beyond:
            say(f"beyond repair: {lost}")
        steps = counted(len(found.steps), "step")
        if not (found.steps or found.beyond):
            say(f"{root}: nothing to repair, by names and footers; `adawise verify {root}` proves the rest")
        elif found.steps and not self.yes:
            say(f"{root}: {steps}, nothing was changed; to take them: adawise repair {root} --yes")
        elif found.steps:
            say(f"{root}: {steps} taken; `adawise verify {root}` proves what there is now")
        return FOUND if found.beyond or (found.steps and not self.yes) else 0
