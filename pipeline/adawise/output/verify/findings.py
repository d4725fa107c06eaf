"""The findings of `verify` and `status`, and the questions of `verify` to a broker: the values that its parts share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from typing_extensions import override

from adawise.ports import TopicIdentity
from adawise.records import Gap, TopicPartition
from adawise.sink import layout
from adawise.sink.claims import Beginning
from adawise.sink.invariant import Offsets


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, and where it was found; `verify` names the file."""

    kind: str  # a stable word
    where: str  # the partition, camera or worker; "" for the whole fleet
    what: str  # a sentence
    remedy: str = ""  # what to do about it

    @override
    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; {self.remedy}" if self.remedy else "")


RESTORE = "restore the file from a backup"
RESTORE_OR_REPAIR = "restore it from a backup, or see what `adawise repair` of this root would do"
DERIVE = "`adawise repair` of this root writes them again, from the segment"
STALE = (
    "if no chain has a gap there, its rows were computed again under other names, and `adawise repair` of this root "
    "moves it away; else restore the segment from a backup"
)
LOST_END = (
    "restore the missing segments from a backup; if none was lost, the group's offsets were moved beyond the end "
    "of this root"
)
REPLAYED = (
    "this is the output of a replay, of a recording or of a topic elsewhere: verify it without --broker, or name the "
    "brokers that have its topic"
)
KEEP = "only a bug in this program writes that: keep the folder as it is, and report it"

damage = partial(Finding, "damage")
"""The finding at a key, with its remedy."""


@dataclass(slots=True)
class ChainReport:
    """The findings in one partition's chain.

    `messages` were compared with the broker's, `lag` is the number of messages beyond the head. `rows` are those of the
    segments, and of the `compacted` files that replace deleted segments; `gaps` are offsets that have none on purpose.
    With `retained`, retention removed what was before the chain's beginning. A chain that began and has no segment yet
    has neither segments nor compacted files; `had_nothing` says that there was nothing to serve up to now.
    """

    tp: TopicPartition
    segments: int = 0
    compacted: int = 0
    rows: int = 0
    pending: int = 0
    next_offset: int = 0
    messages: int | None = None
    lag: int | None = None
    gaps: list[Gap] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)
    retained: Beginning | None = None
    had_nothing: bool = False

    @property
    def is_empty(self) -> bool:
        """True if nothing of the chain exists but the claim of its beginning."""
        return not self.segments and not self.compacted


class UnreadPartition(NamedTuple):
    """Offsets [first, until) of the broker that no worker ever began to read."""

    tp: TopicPartition
    first: int
    until: int


@dataclass(slots=True)
class RootReport:
    """The findings of all chains of a root, and of the files beside them.

    `unread` are partitions of the topic that no worker ever began although they hold messages. `committed` are the
    offsets that the root's group has committed; `commits_unknown` says why they are not known. A replay has no group.
    Of a shard (`is_shard`), messages without a row may be those of other shards; `shard` is its number, None if its
    claim is damaged.
    """

    chains: list[ChainReport] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)
    unread: Sequence[UnreadPartition] = ()
    committed: Mapping[TopicPartition, int] = field(default_factory=dict)
    commits_unknown: str = ""
    is_replay: bool = False
    is_shard: bool = False
    shard: int | None = None

    @property
    def has_damaged_owner(self) -> bool:
        """True if the claim of the owner cannot be read, so that its group and topic are not known."""
        return any(fault.where == layout.OWNER for fault in self.faults)

    @property
    def unproved(self) -> list[ChainReport]:
        """The chains that began and have no segment, of which nothing that was read says whether they ever had one."""
        empty = [chain for chain in self.chains if chain.is_empty and not chain.had_nothing]
        return [chain for chain in empty if chain.tp not in self.committed]

    @property
    def segments(self) -> int:
        """The number of segments."""
        return sum(chain.segments for chain in self.chains)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(chain.rows for chain in self.chains)

    @property
    def lost(self) -> int:
        """The number of offsets that have no rows on purpose."""
        return sum(gap.until - gap.first for chain in self.chains for gap in chain.gaps)


def joined(gaps: Iterable[Gap]) -> list[Gap]:
    """Return the gaps in order, with adjacent ones of one reason joined."""
    found: list[Gap] = []
    for gap in sorted(gaps):
        if found and (found[-1].until, found[-1].reason) == (gap.first, gap.reason):
            found[-1] = found[-1]._replace(until=gap.until)
        else:
            found.append(gap)
    return found


class Broken(Exception):
    """A chain cannot be followed any further. It never leaves the sink."""

    def __init__(self, fault: Finding) -> None:
        super().__init__(str(fault))
        self.fault = fault


class BrokerLog(Protocol):
    """The topic as the broker has it now."""

    def identity(self, topic: str) -> TopicIdentity:
        """Return the identity of the topic. Raises SourceError if there is none, and BrokerUnavailable."""

    def committed(self, group: str, topic: str) -> Mapping[TopicPartition, tuple[int, str]]:
        """Return the offsets that a group has committed, with their notes. Raises FatalError if the user may not."""

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """Return (log start, log end). Raises SourceError if there is no such partition, and BrokerUnavailable."""

    def messages(self, tp: TopicPartition, first: int, until: int) -> tuple[Offsets, Offsets]:
        """Return the offsets in [first, until), ascending, and their timestamps in milliseconds, -1 for none.

        It is quick if each call for a partition begins where the last one ended. Raises BrokerUnavailable.
        """
