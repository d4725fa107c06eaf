"""The command `repair`, which mends an output folder whose files were lost."""

from __future__ import annotations

from itertools import islice

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import FOUND, Command
from adawise.settings.group import Location

_SHOWN = 20  # partitions without a segment that are printed


class RepairCommand(Command):
    """Repair an output folder whose files were lost, moved or removed: print what would be done, or do it with --yes.

    Segments missing from the middle of a chain are replaced by one without rows that records the lost offsets, so that
    the chain is whole again; the command that computes the rows again is printed. A `_sink.json` or an origin that was
    removed is rebuilt from the segments; traces without a segment are moved to `_set_aside`, and missing ones derived.
    Nothing is overwritten, and workers may run meanwhile. Exits with code 3 if something is left to do.
    """

    name = "repair"
    finds = True
    examples = (
        ("show what would be done", "repair runs/output"),
        ("repair it", "repair s3://bucket/yard --yes"),
    )

    root: CliPositionalArg[Location] = Field(description="output folder or s3://BUCKET/PREFIX of a worker")
    yes: CliToggleFlag[bool] = Field(default=False, description="do it")

    @override
    def call(self) -> int:
        """Return 0 if nothing is left to do, else 3."""
        from adawise.console import print_text
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
            print_text(f"{'done' if self.yes else 'would'}: {step.what}")
            if step.again:
                print_text(f"       {step.again}")
        for lost in found.beyond:
            print_text(f"beyond repair: {lost}")
        for tp, offset in islice(found.begun.items(), _SHOWN):
            print_text(
                f"{tp}: it begins at offset {offset}, and there is no segment: nothing was served there yet, or its "
                f"rows are lost; where a group served it, `adawise verify {root} --broker` compares with its offset"
            )
        if len(found.begun) > _SHOWN:
            print_text(f"and {len(found.begun) - _SHOWN} more such partitions (`adawise verify {root} --json`)")
        steps = counted(len(found.steps), "step")
        if not (found.steps or found.beyond):
            nothing = f"nothing {'else ' if found.begun else ''}to repair"
            print_text(f"{root}: {nothing}, by names and footers; `adawise verify {root}` checks the rest")
        elif found.steps and not self.yes:
            print_text(f"{root}: {steps}, nothing was changed; to take them, run: adawise repair {root} --yes")
        elif found.steps:
            print_text(f"{root}: {steps} taken; `adawise verify {root}` checks the result")
        return FOUND if found.beyond or (found.steps and not self.yes) else 0
