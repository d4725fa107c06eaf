"""The work of `adawise verify`: prove that what a worker wrote is whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from adawise.adapt.state import StreamState
from adawise.app.kafka import kafka_log
from adawise.console import Progress, print_json, progress, say
from adawise.errors import FatalError
from adawise.kafka.log import KafkaLog
from adawise.output.finding import Finding
from adawise.output.near import no_output
from adawise.output.verify.findings import ChainReport, joined
from adawise.output.verify.root import strays, walk
from adawise.records import TopicPartition
from adawise.settings import KafkaSettings
from adawise.sink.beginning import Beginning
from adawise.sink.claims import read_origin, read_sink_id
from adawise.sink.files import segment_keys
from adawise.sink.owner import read_owner
from adawise.store.store import Store, open_store

if TYPE_CHECKING:
    from adawise.cli.verify.options import VerifyCommand

FOUND = 3
_SHOWN = 20  # faults that are printed; the first ones are where to look
_LOOK = 1_000  # offsets that are searched for a message at a time


class _NeverRead(NamedTuple):
    """Offsets [first, until) of the broker that no worker ever began to read."""

    tp: TopicPartition
    first: int
    until: int


@dataclass(slots=True)
class _Found:
    """The findings of all chains together."""

    chains: list[ChainReport] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)
    unread: list[_NeverRead] = field(default_factory=list)
    committed: Mapping[TopicPartition, int] = field(default_factory=dict)

    @property
    def segments(self) -> int:
        return sum(chain.segments for chain in self.chains)

    @property
    def compacted(self) -> int:
        return sum(chain.compacted for chain in self.chains)

    @property
    def rows(self) -> int:
        return sum(chain.rows for chain in self.chains)

    @property
    def lost(self) -> int:
        return sum(gap.until - gap.first for chain in self.chains for gap in chain.gaps)

    @property
    def compared(self) -> int:
        return sum(chain.messages or 0 for chain in self.chains)

    @property
    def lag(self) -> int:
        return sum((chain.lag or 0) + chain.pending for chain in self.chains)


def verify(asked: VerifyCommand) -> int:
    """Walk every chain under each root, with --broker beside its topic, and print what was found.

    Returns:
        0 if all is whole, else 3, also where a topic has partitions with messages that no worker ever read.

    Raises:
        SettingsError: no worker ever wrote to one of the roots.
        BrokerUnavailable, SourceError: the topic cannot be read.
        StoreUnavailable: the store does not answer.
    """
    settings, broker, several = asked.settings, asked.broker, len(asked.root) > 1
    stores = {root: open_store(root) for root in asked.root}
    for root, store in stores.items():
        # A root that has lost its `_sink.json` is verified all the same.
        if read_sink_id(store) is None and not segment_keys(store):
            raise no_output(root)
    by_root: dict[str, _Found] = {}
    with _log(settings.kafka, wanted=broker) as log:
        for root, store in stores.items():
            by_root[root] = found = _verified(store, log, settings.kafka)
            if not asked.as_json:
                say("\n".join(_as_text(root, found, broker)))
    harmed = [root for root, found in by_root.items() if found.faults or found.unread]
    said = [_as_json(root, found, broker) for root, found in by_root.items()]
    if asked.as_json:
        whole = not any(found.faults for found in by_root.values())
        print_json({"whole": whole, "roots": said} if several else said[0])
    elif several:
        rows = sum(found.rows for root, found in by_root.items() if root not in harmed)
        named = f"; look at {', '.join(harmed)}" if harmed else ""
        say(f"{len(by_root) - len(harmed)} of {len(by_root)} outputs are whole, with {rows} rows{named}")
    return FOUND if harmed else 0


def _verified(store: Store, log: KafkaLog | None, kafka: KafkaSettings) -> _Found:
    with progress("verified", len(segment_keys(store)), unit="segments") as shown:
        found = _walk(store, log, shown)
        if log is not None and kafka.origin == "earliest" and kafka.origin_ms is None:
            found.unread += _unread(store, log, {chain.tp for chain in found.chains})
    return found


def _unread(store: Store, log: KafkaLog, known: set[TopicPartition]) -> Iterator[_NeverRead]:
    """Yield the partitions of the root's topic that no worker has begun, although there is a message in them."""
    owner = read_owner(store)
    if owner is None or owner.purpose != "run":  # a replay may be of a part
        return
    tps = {TopicPartition(owner.topic, number) for number in range(log.identity(owner.topic).partitions)}
    for tp in sorted(tps - known):
        first, until = log.bounds(tp)
        looks = range(first, until, _LOOK)
        if read_origin(store, tp) is None and any(len(log.messages(tp, at, min(at + _LOOK, until))[0]) for at in looks):
            yield _NeverRead(tp, first, until)


def _walk(store: Store, log: KafkaLog | None, shown: Progress) -> _Found:
    found = _Found()
    committed = {} if log is None else _committed(store, log)  # before the walk: meanwhile chains only grow
    chains = walk(store, read_state=StreamState.from_bytes, log=log, committed=committed, on_segment=shown.advance)
    found.committed = committed
    for chain in chains:
        found.chains.append(chain)
        found.faults += chain.faults
        if found.faults:
            shown.note(f"{len(found.faults)} faults")
    found.faults += strays(store)
    return found


def _committed(store: Store, log: KafkaLog) -> dict[TopicPartition, int]:
    """Return the offsets that the root's group has committed for it; a note says which root an offset is of."""
    owner, root_id = read_owner(store), read_sink_id(store)
    if owner is None or owner.purpose != "run":
        return {}
    try:
        found = log.committed(owner.group, owner.topic)
    except FatalError as error:  # only the group's own users may have the right
        say(f"{store}: the committed offsets of group {owner.group!r} are not known: {error}", sys.stderr)
        return {}
    return {tp: offset for tp, (offset, note) in found.items() if note in ("", root_id)}


def _log(settings: KafkaSettings, *, wanted: bool) -> AbstractContextManager[KafkaLog | None]:
    if not wanted:
        return nullcontext()
    return closing(kafka_log(settings, max_partition_fetch_bytes=settings.max_partition_fetch_bytes))


def _as_text(root: str, found: _Found, broker: bool) -> Iterator[str]:
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
    empty = [chain for chain in found.chains if chain.is_empty]
    if not found.segments and not found.compacted:
        if not found.unread:
            what = f"there is no segment in {root}" if empty else f"nothing was written to {root} yet"
            yield what + (f"; {found.lag} messages wait" if broker else "")
        yield from _begun(empty, found.committed, broker)
        return
    what = "what is there" if found.unread else root
    compacted = f" and {found.compacted} compacted files" if found.compacted else ""
    gaps = [(chain.tp, gap) for chain in found.chains for gap in joined(chain.gaps)]
    once = "every offset once" if not gaps else f"every offset once except {found.lost} that were never served"
    yield (
        f"{what} is whole: {found.segments} segments{compacted} of {len(found.chains) - len(empty)} partitions, "
        f"{found.rows} rows, "
        f"{once}; footers, rows, states and traces agree"
    )
    for tp, gap in gaps[:_SHOWN]:
        yield (
            f"{tp}: offsets {gap.first} to {gap.until - 1} have no rows, and that is recorded: {gap.reason} "
            f"({gap.until - gap.first} offsets)"
        )
    if len(gaps) > _SHOWN:
        yield f"and {len(gaps) - _SHOWN} more such gaps (--json has all of them)"
    yield from (_retained(chain.tp, chain.retained) for chain in found.chains if chain.retained)
    yield from _begun(empty, found.committed, broker)
    if broker:
        yield (
            f"each of the {found.compared} messages that the broker still has, up to the end of the chains, is "
            f"accounted for; {found.lag} are not written yet"
            + (", besides those of partitions that were not read" if found.unread else "")
        )


def _begun(empty: Sequence[ChainReport], committed: Mapping[TopicPartition, int], broker: bool) -> Iterator[str]:
    """Yield a line for each partition that a worker has begun to read and that has no segment."""
    for chain in empty[:_SHOWN]:
        if chain.tp in committed:
            why = "its group has committed nothing beyond that"
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


def _cut(cut: Beginning) -> dict[str, object]:
    return {"rows": cut.rows, "files": cut.files, "until_day": cut.until_day, "removed_at": cut.removed_at}


def _retained(tp: TopicPartition, cut: Beginning) -> str:
    return (
        f"{tp}: begins where retention cut it; output committed up to {cut.until_day} was removed, which is "
        f"recorded: {cut.rows} rows in {cut.files} files"
    )


def _as_json(root: str, found: _Found, broker: bool) -> dict[str, object]:
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
            **({"retained": _cut(chain.retained)} if chain.retained is not None else {}),
            **({"messages_compared": chain.messages, "lag": chain.lag} if broker else {}),
        }
        for chain in found.chains
    ]
    faults = [{"file": fault.where, "fault": fault.what, "remedy": fault.remedy} for fault in found.faults]
    unread = [{"topic": tp.topic, "partition": tp.partition, "first": a, "last": b - 1} for tp, a, b in found.unread]
    return {
        "root": root,
        "whole": not faults,
        "segments": found.segments,
        "never_served": found.lost,
        "chains": chains,
        "faults": faults,
        **({"complete": not unread, "unread": unread} if broker else {}),
    }
