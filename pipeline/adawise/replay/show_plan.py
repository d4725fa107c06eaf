"""A plan for the terminal: the balance of its shards, what each reads, and what bounds the whole."""

from __future__ import annotations

from collections import Counter

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from adawise.replay.plan import ReplayPlan, StoredPlan
from adawise.text import as_size, counted

_SHARDS = 32  # shown, the dearest first; the document has all of them


def show(stored: StoredPlan, recording: str, console: Console) -> None:
    """Print a plan, and how to go on."""
    for line in sentences(stored):
        console.print(line, soft_wrap=True)
    console.print(_table(stored.plan))
    last = len(stored.plan.shards) - 1
    numbers = "0" if not last else f"I, for each I from 0 to {last}"
    console.print(f"next: adawise replay {recording} -o {stored.output} --shard {numbers}", soft_wrap=True)


def sentences(stored: StoredPlan) -> list[str]:
    """Return what there is to say of a plan, in words."""
    plan, costs = stored.plan, [shard.cost for shard in stored.plan.shards]
    whole, messages = sum(costs), sum(shard.messages for shard in plan.shards)
    made = "made now" if stored.is_new else "as it was made before"
    found = [
        f"plan of {counted(len(costs), 'shard')} in {stored.output}, {made}: {counted(plan.cameras, 'camera')} in "
        f"{counted(len(plan.partitions), 'partition')}, {counted(messages, 'message')}",
        f"balance: the dearest shard costs {max(costs) * len(costs) / whole:.2f} times the mean, so that all together "
        f"take 1/{whole / max(costs):.1f} of the time of one",
        f"read amplification {read_amplification(plan):.2f}: the shards read {as_size(sum(plan.read_bytes))} of "
        f"{as_size(plan.stored_bytes)}, since each reads its partitions as a whole",
    ]
    name = "the messages without a camera" if plan.dearest.camera is None else plan.dearest.camera
    share = plan.dearest.cost / whole
    found.append(
        f"bound: {name} in partition {plan.dearest.partition} has {100 * share:.1f} % of the cost, and a camera is not "
        f"divided: more than {counted(int(1 / share), 'shard')} end no sooner"
    )
    if plan.nameless:
        found.append(
            f"{counted(plan.nameless, 'message')} name no camera in key or headers: they count as one camera of their "
            "partition, and cameras that only Arrow batches name are divided by name between the shards that read it"
        )
    return found


def read_amplification(plan: ReplayPlan) -> float:
    """Return the bytes that all shards read over the bytes of the whole."""
    return sum(plan.read_bytes) / max(1, plan.stored_bytes)


def _table(plan: ReplayPlan) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for name in ("shard", "cameras", "partitions", "messages", "of the cost", "reads"):
        table.add_column(name, justify="right")
    cameras, partitions = Counter[int](), Counter[int]()
    for owners in plan.owners.values():
        cameras.update(owners.cameras.values())
        partitions.update(owners.readers)
    whole, read = sum(shard.cost for shard in plan.shards), plan.read_bytes
    numbers = sorted(range(len(plan.shards)), key=lambda number: (-plan.shards[number].cost, number))
    for number in numbers[:_SHARDS]:
        shard = plan.shards[number]
        cells = (number, cameras[number], partitions[number], f"{shard.messages:,}")
        table.add_row(*map(str, cells), f"{100 * shard.cost / whole:.1f} %", as_size(read[number]))
    if len(numbers) > _SHARDS:
        table.add_row(f"{len(numbers) - _SHARDS} more")
    return table
