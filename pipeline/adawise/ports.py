"""The worker's ports: what it asks of a source, of a sink and of a classifier. The docstrings are the contract.

Every implementation of a port passes the same contract suite (`tests/contracts/`). All calls come from the worker's
main thread unless a method says otherwise; none may block longer than it says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from adawise.records import (
    Alert,
    BatchTrace,
    Frame,
    Gap,
    ImageBatch,
    Message,
    PairKey,
    Predictions,
    RowResult,
    Switch,
    TopicPartition,
)

if TYPE_CHECKING:  # as in `records`
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """What makes a topic the same topic tomorrow. `topic_id` is "" where a broker has none."""

    cluster_id: str
    topic_id: str
    partitions: int


@dataclass(frozen=True, slots=True)
class Poll:
    """What one `Source.poll` brought. Events come before messages: a lost partition's messages are not among them."""

    messages: Sequence[Message] = ()
    assigned: Sequence[TopicPartition] = ()  # paused until `resume`; recover and `seek` first
    lost: Sequence[TopicPartition] = ()  # not ours any more: write what is complete, if it can be, and forget the rest


class SourceLog(Protocol):
    """What the log that messages come from says of itself, of any partition, owned or not.

    Every method raises BrokerUnavailable when nobody can say now.
    """

    def identity(self, topic: str) -> TopicIdentity:
        """The identity of the topic now. Raises SourceError if there is no such topic."""

    def check(self) -> None:
        """Return if all that was delivered is of the topic that was there in the beginning.

        Raises SourceError if that was deleted and created again.
        """

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """(log start, log end): the first offset that can still be read and the one after the last."""

    def timestamps(self, tp: TopicPartition, first: int, until: int) -> Mapping[int, int]:
        """Of the messages of [first, until), which lies within the log: offset to milliseconds, -1 for none.

        A log that cannot change may leave them out.
        """

    def offset_at(self, tp: TopicPartition, timestamp_ms: int) -> int | None:
        """The first offset that is not older than `timestamp_ms`; None if every message is."""

    def origin(self, tp: TopicPartition) -> int:
        """The offset at which a partition without a chain begins, by the configured origin."""


class Source(Protocol):
    """Messages of partitions that this worker owns for the time being, in offset order within a partition."""

    @property
    def log(self) -> SourceLog:
        """What can be asked of the log that they come from."""

    @property
    def exhausted(self) -> bool:
        """True once no message will ever come again (the end of a recording); never for a live topic."""

    def poll(self, timeout_s: float) -> Poll:
        """The next messages and events, waiting at most `timeout_s`.

        A partition that was revoked goes to nobody else before the next call; one that was lost may be another's.
        What nobody can read comes as one message that is `missing`, in its place.
        Raises BrokerUnavailable when the broker cannot be reached, SourceError when the topic is gone.
        """

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Deliver from `offset` next. Only for an owned partition."""

    def pause(self, tps: Sequence[TopicPartition]) -> None:
        """Deliver nothing of these until `resume`."""

    def resume(self, tps: Sequence[TopicPartition]) -> None:
        """Deliver again, from where delivery stopped or the last `seek`."""

    def drained(self, tp: TopicPartition) -> bool:
        """True if everything that the broker has of this partition now was delivered; False if nobody can say."""

    def stands(self, tp: TopicPartition) -> bool:
        """True while nothing of this partition comes because what is next cannot be read; it is tried now and then."""

    def lag(self, tp: TopicPartition, since: int = 0) -> int | None:
        """Messages from the next one to be delivered, or from `since` if that is later, to the end of the log.

        The end is that of a few seconds ago at most, also while the partition is paused. None if it is not known now.
        Never raises.
        """

    def commit(self, offsets: Mapping[TopicPartition, int], note: str = "") -> None:
        """Tell the broker the next offsets, without waiting: a hint for lag tools. Never raises.

        `note` is kept beside them, where a broker can: the id of the root that has what comes before.
        """

    def close(self) -> None:
        """Leave the group and free everything. May be called twice."""


@dataclass(frozen=True, slots=True)
class ServedBy:
    """What rows say of the pair that served them. `pair` is its id, "" where nobody asked for one.

    `settings` is what the two fingerprints are hashes of, by name, as JSON has it; `places` says where what is named by
    a hash there lies; `method` says in words how alpha is chosen. All are empty where nobody noted them. `config` is
    the hash of the model's config.
    """

    classes: tuple[str, ...]
    model_fingerprint: str
    config_fingerprint: str
    pair: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    method: str = ""
    config: str = ""

    @property
    def key(self) -> PairKey:
        """The pair."""
        return PairKey(self.pair, self.config)


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a partition's chain: where to read on, and what was known there.

    `pending` are offsets below `next_offset` whose images were read but not yet in a committed batch; they are read
    again. `states` maps a stream_id to its serialised adaptation state, `stream_table` says which streams have a place
    (`adawise.worker.stream_table`), `alerts` which alerts are raised (`adawise.alerts`); both are empty if whoever
    wrote the segment had none. `switches` say which pairs served from where on, the last of them the newest rows;
    they are empty in segments of earlier versions. `newest` are the last messages of its rows, offset to the broker's
    timestamp in milliseconds: what the broker has to have there. `tells` is when whoever wrote the segment told
    results, see `When`.
    """

    next_offset: int
    pending: tuple[int, ...] = ()
    states: Mapping[str, bytes] = field(default_factory=dict)
    segment: str | None = None  # name of the newest segment, None before the first
    stream_table: bytes = b""
    alerts: bytes = b""
    tells: str = ""
    switches: tuple[Switch, ...] = ()
    newest: Mapping[int, int] = field(default_factory=dict, compare=False)  # of a head that was recovered
    holes: Sequence[str] = field(default=(), compare=False)  # what is missing of the chain before it
    is_counted: bool = field(default=True, compare=False)  # False where nobody knows how many segments are before it

    @property
    def low_water(self) -> int:
        """The first offset that still has to be read: what is sought at recovery and committed to the broker."""
        return min(self.pending, default=self.next_offset)

    def is_told_again(self, tells: When | None) -> bool:
        """Whether results of the newest segment are to be told again: whoever was to tell them may have died before."""
        return tells is not None and "committed" in {tells, self.tells}


Served: TypeAlias = tuple[ImageBatch, Predictions, BatchTrace]


@dataclass(frozen=True, slots=True)
class SegmentDraft:
    """All that a segment will hold: results of [head.next_offset, next_offset), less `pending`, plus the old pending.

    The invariant that recovery and `verify` rest on, over offsets of delivered messages:
    `rows ∪ pending = head.pending ∪ [head.next_offset, next_offset)`, every (offset, index) once.

    `attempt` is of this draft alone, and was named before its first row was served; "" leaves it to the sink. All of it
    was served `by` one pair, the last of `switches`; None: the one that the sink was made with. `tells`: when its
    results are told, "" for never.
    """

    tp: TopicPartition
    next_offset: int
    pending: tuple[int, ...]
    states: Mapping[str, bytes]
    accepted: Sequence[Served]
    rejected: Sequence[Frame]
    gaps: Sequence[Gap] = ()
    stream_table: bytes = b""
    alerts: bytes = b""
    attempt: str = ""
    tells: str = ""
    by: ServedBy | None = None
    switches: tuple[Switch, ...] = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """What came of `Sink.commit`. `won` is False if another worker wrote that segment: adopt `head`, drop the rest.

    `seconds` is how long it took, nan if nobody looked.
    """

    head: Head
    won: bool
    rows: int
    size_bytes: int
    seconds: float = field(default=float("nan"), compare=False)


class Sink(Protocol):
    """A chain of segments for each partition. A segment is created whole, once, or not at all."""

    @property
    def root_id(self) -> str:
        """Which output it is; "" before it was checked."""

    def check(self) -> None:
        """Prove that the store creates only what is absent. Raises SettingsError (with the remedy) if not."""

    def began(self, topic: str, identity: TopicIdentity) -> TopicIdentity:
        """The topic as it was when the first of its chains began, which is `identity` if none has.

        Partitions beyond those that it had then were added later, and every message in them is new.
        Raises ChainError if `identity` is another topic, StoreUnavailable.
        """

    def recover(self, tp: TopicPartition, identity: TopicIdentity, origin: int) -> Head:
        """Walk the chain to its head; without a chain, claim `origin` for it (whoever claimed first is right).

        Raises ChainError if the chain was written from another topic or is damaged, and StoreUnavailable.
        Safe to call for a partition that this worker owned before.
        """

    def commit(self, draft: SegmentDraft) -> Commit:
        """Write the segment after the recovered head of `draft.tp`, then its traces.

        May be called from any thread, for one partition at a time.

        Raises StoreUnavailable when the store does not answer; calling again with the same draft is safe.
        """

    def newest(self, tp: TopicPartition) -> Sequence[Told]:
        """The rows of the newest segment of a recovered partition, batch by batch; nothing before the first.

        Raises ChainError, StoreUnavailable.
        """

    def forget(self, tp: TopicPartition) -> None:
        """Free what is held of a partition that this worker does not own any more; it may be recovered again."""


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """Something to be told: a served batch, a frame that was not accepted, either as rows of a segment, or an alert.

    `attempt` is that of the draft, or of the segment, which has it. `by` is what served; None: who tells knows it.
    """

    attempt: str
    what: Served | Frame | list[RowResult] | Alert
    by: ServedBy | None = None

    @property
    def rows(self) -> int:
        """How many rows it tells; an alert is about some, and tells none."""
        if isinstance(self.what, tuple):
            return len(self.what[0])
        if isinstance(self.what, Alert):
            return 0
        return 1 if isinstance(self.what, Frame) else len(self.what)


When: TypeAlias = Literal["early", "committed"]
"""When results are told: once they are served, or once they are durable. Alerts are told once they are durable."""


class Results(Protocol):
    """Where what becomes of images is told beside the chain. At least once, in order; never blocks but where it says.

    The caller sees to it that early results are settled before their segment is created, and committed ones and alerts
    of a segment before the next one is; whoever recovers a partition tells those of its newest segment again.
    """

    @property
    def when(self) -> When | None:
        """None: nobody wants to be told anything."""

    @property
    def in_flight_bytes(self) -> int:
        """Of what was taken and is not acknowledged."""

    def send(self, told: Told, *, wait: bool) -> bool:
        """Take it, if there is room, or `wait` for that; False if it was not taken.

        Raises BrokerUnavailable; then it was not taken whole, and is to be sent again.
        """

    def settled(self, *, wait: bool) -> bool:
        """True if all that was taken is acknowledged, or is after a `wait`. Raises BrokerUnavailable: call it again."""

    def hurry(self, within_s: float) -> None:
        """The caller ends soon: from now on all waits together, to `close`, take no longer than that."""

    def close(self) -> None:
        """Settle and free. May be called twice."""


class DeadLetters(Protocol):
    """Where messages go that could not be read at all. At least once."""

    def send(self, message: Message, frame: Frame) -> None:
        """Send the original bytes with the reason in `frame`. Blocks when too many bytes are in flight."""

    def flush(self) -> None:
        """Return when everything sent is acknowledged. Raises BrokerUnavailable if that takes too long."""

    def hurry(self, within_s: float) -> None:
        """As of `Results`."""

    def close(self) -> None:
        """Flush and free. May be called twice."""


class Classifier(Protocol):
    """The model pair: logits at an alpha of the grid."""

    @property
    def alphas(self) -> Sequence[float]:
        """The grid, ascending, from 0 (zero-shot) to 1 (fine-tuned)."""

    def evaluate(self, asked: Mapping[int, Sequence[Tensor]]) -> Mapping[int, Tensor]:
        """Logits of what is asked for at each alpha, by its index in `alphas`; one wait for a device in all.

        Images: one or more uint8 `[n, 3, S, S]`, N >= 1 in all -> float32 `[N, C]` on the processor, in their order.
        Row i depends on image i and on the alpha alone, bit for bit, whatever else is in the call.
        """
