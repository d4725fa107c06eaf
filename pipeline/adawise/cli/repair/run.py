"""The work of `adawise repair`: print what would mend a root whose files were lost, or mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adawise.console import say
from adawise.output.near import no_output
from adawise.output.repair.plan import plan
from adawise.sink.claims import read_sink_id
from adawise.sink.files import segment_keys
from adawise.store.store import open_store
from adawise.text import counted

if TYPE_CHECKING:
    from adawise.cli.repair.options import RepairCommand

FOUND = 3


def repair(asked: RepairCommand) -> int:
    """Print the steps that mend a root, and take them with --yes. Return 0 if nothing is left to do, else 3.

    Raises:
        SettingsError: no worker ever wrote there.
        ChainError: what was missing has come back meanwhile.
        StoreUnavailable: the store does not answer.
    """
    root, does = asked.root, asked.yes
    store = open_store(root)
    if read_sink_id(store) is None and not segment_keys(store):
        raise no_output(root)
    found = plan(store)
    for step in found.steps:
        if does:
            step.do()
        say(f"{'done' if does else 'would'}: {step.what}")
        if step.again:
            say(f"       {step.again}")
    for said in found.beyond:
        say(f"beyond repair: {said}")
    steps = counted(len(found.steps), "step")
    if not (found.steps or found.beyond):
        say(f"{root}: nothing to repair, by names and footers; `adawise verify {root}` checks the rest")
    elif found.steps and not does:
        say(f"{root}: {steps}, nothing was changed; to take them, run: adawise repair {root} --yes")
    elif found.steps:
        say(f"{root}: {steps} taken; `adawise verify {root}` checks the result")
    return FOUND if found.beyond or (found.steps and not does) else 0
