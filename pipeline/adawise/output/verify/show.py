"""The report of `verify` on a root, in words for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator

from adawise.output.verify.findings import RootReport, joined

_SHOWN = 20  # faults that are printed; the first ones are where to look


def in_words(root: str, found: RootReport, broker: bool) -> Iterator[str]:
    """Yield the lines to print; `broker` says whether the topic was compared."""
    if found.faults:
        yield f"{len(found.faults)} faults under {root}; start with the first of each chain:"
        yield from (f"  {fault}" for fault in found.faults[:_SHOWN])
        if len(found.faults) > _SHOWN:
            yield f"  and {len(found.faults) - _SHOWN} more (--json has all of them)"
        return
    if found.unread:
        yield f"{root} is not complete: {len(found.unread)} partitions that hold messages were never read"
        yield from (f"  {tp}: offsets {first} to {until - 1} wait" for tp, first, until in found.unread[:_SHOWN])
        yield "a worker that just started waits for its partitions (partitions_awaited); otherwise start one"
    is_begun = any(chain.is_empty for chain in found.chains)
    whole = [chain for chain in found.chains if not chain.is_empty]
    lag = sum((chain.lag or 0) + chain.pending for chain in found.chains)
    if whole:
        compacted = sum(chain.compacted for chain in whole)
        gaps = [(chain.tp, gap) for chain in found.chains for gap in joined(chain.gaps)]
        more = len(found.unproved)
        place = f"what {root} holds" if more else "what is there" if found.unread else root
        yield (
            f"{place} is whole: {found.segments} segments"
            + (f" and {compacted} compacted files" if compacted else "")
            + f" of {len(whole)} partitions, {found.rows} rows, "
            + ("none twice" if found.is_shard else f"every offset{' of these' if more else ''} once")
            + (f" except {found.lost} that were never served" if gaps else "")
            + "; footers, rows, states and traces agree"
            + (f"; {more} more began, and whether they lost rows is not known" if more else "")
        )
        for tp, gap in gaps[:_SHOWN]:
            yield (
                f"{tp}: offsets {gap.first} to {gap.until - 1} have no rows, and that is recorded: {gap.reason} "
                f"({gap.until - gap.first} offsets)"
            )
        if len(gaps) > _SHOWN:
            yield f"and {len(gaps) - _SHOWN} more such gaps (--json has all of them)"
        for chain in found.chains:
            if cut := chain.retained:
                yield (
                    f"{chain.tp}: begins where retention cut it; output committed up to {cut.until_day} was removed, "
                    f"which is recorded: {cut.rows} rows in {cut.files} files"
                )
    elif not found.unread:
        what = f"there is no segment in {root}" if is_begun else f"nothing was written to {root} yet"
        yield what + (f"; {lag} messages wait" if broker else "")
    yield from _begun(found, broker)
    compared = sum(chain.messages or 0 for chain in found.chains)
    if broker and whole and found.is_shard:
        yield (
            f"the broker still has the messages of {compared} offsets of this shard. One shard does not show whether "
            "rows are missing: compare all shards with a replay of the whole (`adawise diff`)"
        )
    elif broker and whole:
        besides = ", besides those of partitions that were not read" if found.unread else ""
        yield (
            f"each of the {compared} messages that the broker still has, up to the end of the chains, is accounted "
            f"for; {lag} are not written yet{besides}"
        )


def _begun(found: RootReport, broker: bool) -> Iterator[str]:
    """Yield a line for each partition that a worker has begun to read and that has no segment."""
    empty = [chain for chain in found.chains if chain.is_empty]
    for chain in empty[:_SHOWN]:
        if chain.tp in found.committed:
            why = "its group has committed nothing beyond that"
        elif chain.had_nothing:
            why = f"{'the part that was replayed' if found.is_replay else 'the log of the broker'} ends there too"
        elif found.is_replay:
            why = (
                "nothing was served there yet, its part has no message of these cameras, or every segment is lost; "
                "the same `adawise replay` into it goes on, and serves what is missing"
            )
        elif broker:
            why = "nothing was served there yet, or every segment is lost: the group's committed offset is not known"
        else:
            why = (
                "nothing was served there yet, or every segment is lost; --broker compares with the group's "
                "committed offset"
            )
        yield f"{chain.tp}: it begins at offset {chain.next_offset}, and there is no segment: {why}"
    if len(empty) > _SHOWN:
        yield f"and {len(empty) - _SHOWN} more such partitions (--json has all of them)"


def as_document(root: str, found: RootReport, broker: bool) -> dict[str, object]:
    """Return the JSON object; `broker` says whether the topic was compared."""
    chains = [
        {
            "topic": chain.tp.topic,
            "partition": chain.tp.partition,
            "segments": chain.segments,
            "compacted_files": chain.compacted,
            "rows": chain.rows,
            "next_offset": chain.next_offset,
            "pending": chain.pending,
            "gaps": [
                {"first": gap.first, "last": gap.until - 1, "offsets": gap.until - gap.first, "reason": gap.reason}
                for gap in joined(chain.gaps)
            ],
            **(
                {}
                if (cut := chain.retained) is None
                else {"retained": {name: getattr(cut, name) for name in ("rows", "files", "until_day", "removed_at")}}
            ),
            **({"messages_compared": chain.messages, "lag": chain.lag} if broker else {}),
        }
        for chain in found.chains
    ]
    faults = [{"file": fault.where, "fault": fault.what, "remedy": fault.remedy} for fault in found.faults]
    unread = [{"topic": tp.topic, "partition": tp.partition, "first": a, "last": b - 1} for tp, a, b in found.unread]
    unproved = [{"topic": chain.tp.topic, "partition": chain.tp.partition} for chain in found.unproved]
    return {
        "root": root,
        **({"shard": found.shard} if found.is_shard else {}),
        "whole": not faults,
        "segments": found.segments,
        "never_served": found.lost,
        "chains": chains,
        "unproved": unproved,
        "faults": faults,
        **({"complete": not unread and not found.has_damaged_owner, "unread": unread} if broker else {}),
    }
