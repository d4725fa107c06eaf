"""The worker's ports: its interfaces to a source, a sink, a classifier and other outputs. The docstrings are contracts.

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
    LabelColumn,
    Message,
    PairKey,
    Predictions,
    RowResult,
    Selection,
    Switch,
    TopicPartition,
    label_column,
)

if TYPE_CHECKING:  # as in `records`
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """The identity by which a topic is recognised later. `topic_id` is "" where a broker has none."""

    cluster_id: str
    topic_id: str
    partitions: int


@dataclass(frozen=True, slots=True)
class Poll:
    """The result of one `Source.poll`. Events come before messages: a lost partition's messages are not among them."""

    messages: Sequence[Message] = ()
    assigned: Sequence[TopicPartition] = ()  # paused until `resume`; recover and `seek` first
    lost: Sequence[TopicPartition] = ()  # no longer owned: write complete rows, if possible, and forget the rest


class SourceLog(Protocol):
    """Queries about the log that messages come from, for any partition, owned or not.

    Every method raises BrokerUnavailable when the broker cannot answer now.
    """

    def identity(self, topic: str) -> TopicIdentity:
        """Return the current identity of the topic. Raises SourceError if there is no such topic."""

    def check(self) -> None:
        """Check that all messages that were delivered are of the topic that there was in the beginning.

        Raises SourceError if the topic was deleted and created again.
        """

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """Return (log start, log end): the first offset that can still be read, and the one after the last."""

    def timestamps(self, tp: TopicPartition, first: int, until: int) -> Mapping[int, int]:
        """Return the timestamps of the messages in [first, until), which lies within the log, by offset.

        Timestamps are in milliseconds, -1 for none. A log that cannot change may leave messages out.
        """

    def offset_at(self, tp: TopicPartition, timestamp_ms: int) -> int | None:
        """Return the first offset whose message is not older than `timestamp_ms`; None if every message is older."""

    def origin(self, tp: TopicPartition) -> int:
        """Return the offset at which a partition without a chain begins, by the configured origin."""


class Source(Protocol):
    """The messages of the partitions that this worker currently owns, in offset order within a partition."""

    @property
    def log(self) -> SourceLog:
        """The queries about the log that the messages come from."""

    @property
    def exhausted(self) -> bool:
        """True once no message will come again (the end of a recording); never for a live topic."""

    def poll(self, timeout_s: float) -> Poll:
        """Return the next messages and events, waiting at most `timeout_s`.

        A partition that was revoked goes to no other worker before the next call; one that was lost may already have
        another owner. Offsets that cannot be read come as one message that is `missing`, in their place.

        Raises BrokerUnavailable when the broker cannot be reached, SourceError when the topic is gone.
        """

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Deliver the partition from `offset` next. Only for an owned partition."""

    def pause(self, tps: Sequence[TopicPartition]) -> None:
        """Deliver nothing of these partitions until `resume`."""

    def resume(self, tps: Sequence[TopicPartition]) -> None:
        """Deliver these partitions again, from where delivery stopped or the last `seek`."""

    def drained(self, tp: TopicPartition) -> bool:
        """Return True if everything that the broker now has of this partition was delivered; False if not known."""

    def blocked(self, tp: TopicPartition) -> bool:
        """Return True while the partition is blocked, because its next message cannot be read.

        The source tries to read it now and then.
        """

    def lag(self, tp: TopicPartition, since: int = 0) -> int | None:
        """Count the messages from the next one to be delivered, or from `since` if that is later, to the log's end.

        The log's end is at most a few seconds old, also while the partition is paused. None if it is not known now.
        Never raises.
        """

    def commit(self, offsets: Mapping[TopicPartition, int], note: str = "") -> None:
        """Commit the next offsets to the broker, without waiting: a hint for lag tools. Never raises.

        `note` is stored beside them, where a broker can: the id of the root that has the rows of the offsets before.
        """

    def close(self) -> None:
        """Leave the group and free everything. May be called twice."""


@dataclass(frozen=True, slots=True)
class ServedBy:
    """The facts that rows state about the pair that served them.

    `settings`, `places` and `method` are empty, and `tail_share` is None, where they were not recorded.

    Attributes:
        classes: the C class names, in the order of indices.
        model_fingerprint: hash of the model.
        config_fingerprint: hash of the settings that alphas depend on.
        pair: the pair's id; "" where it was not given one.
        settings: what the two fingerprints are hashes of, by name, as JSON values.
        places: by the names of `settings` that are hashes of files or folders, where these are.
        method: how alpha is chosen, in words.
        config: the hash of the model's config.
        tail_share: the cost of an image at a second alpha, as a share of a forward, in (0, 1].
    """

    classes: tuple[str, ...]
    model_fingerprint: str
    config_fingerprint: str
    pair: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    method: str = ""
    config: str = ""
    tail_share: float | None = None

    @property
    def label_column(self) -> LabelColumn | None:
        """The column that results have as their label. See `records.label_column`."""
        return label_column(self.settings)

    @property
    def key(self) -> PairKey:
        """The key of the pair."""
        return PairKey(self.pair, self.config)


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a partition's chain: where to read on, and what was known there.

    Attributes:
        next_offset: the first offset that the chain does not cover.
        pending: offsets below `next_offset` whose images were read but are not in a committed batch; they are read
            again.
        states: serialised adaptation states, by stream_id.
        segment: name of the newest segment; None before the first.
        stream_table: which streams have a place (`adawise.worker.stream_table`); empty if the segment's writer had no
            table.
        alerts: which alerts are raised (`adawise.alerts`); empty if the segment's writer had none.
        publish_when: when the segment's writer published results (`When`), or "".
        switches: which pairs served from where on, the last of them the newest rows; empty in segments of earlier
            versions.
        newest: the last messages of the chain's rows, offset -> the broker's timestamp in milliseconds, which the
            broker still has to have there.
        holes: what is missing of the chain before this end.
        is_counted: False if it is not known how many segments come before.
    """

    next_offset: int
    pending: tuple[int, ...] = ()
    states: Mapping[str, bytes] = field(default_factory=dict)
    segment: str | None = None
    stream_table: bytes = b""
    alerts: bytes = b""
    publish_when: str = ""
    switches: tuple[Switch, ...] = ()
    newest: Mapping[int, int] = field(default_factory=dict, compare=False)  # set by recovery alone
    holes: Sequence[str] = field(default=(), compare=False)
    is_counted: bool = field(default=True, compare=False)

    @property
    def low_water(self) -> int:
        """The first offset that still has to be read. Recovery reads on from it, and it is committed to the broker."""
        return min(self.pending, default=self.next_offset)

    def is_published_again(self, publish_when: When | None) -> bool:
        """Return True if the results of the newest segment are to be published again.

        The worker that was to publish them once they were durable may have died before.
        """
        return publish_when is not None and "committed" in {publish_when, self.publish_when}


Served: TypeAlias = tuple[ImageBatch, Predictions, BatchTrace]


@dataclass(frozen=True, slots=True)
class SegmentDraft:
    """The content of a segment: results of [head.next_offset, next_offset), less `pending`, plus the old pending.

    Recovery and `verify` rely on this invariant, over offsets of delivered messages:
    `rows ∪ pending = head.pending ∪ [head.next_offset, next_offset)`, every (offset, index) once.

    Attributes:
        tp: the partition.
        next_offset: the offset at which the next segment begins.
        pending: as in `Head`.
        states: as in `Head`.
        accepted: the served batches.
        rejected: the images that were not accepted.
        gaps: offsets without rows.
        stream_table: as in `Head`.
        alerts: as in `Head`.
        attempt: a name that no other draft has, chosen before the first row was served; "" leaves it to the sink.
        publish_when: when its results are published; "" for never.
        by: the one pair that served all of it, the last of `switches`; None: the pair that the sink was made with.
        switches: as in `Head`.
        others: offsets that were pending and have no row here, since other workers serve all of their images.
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
    publish_when: str = ""
    by: ServedBy | None = None
    switches: tuple[Switch, ...] = ()
    others: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """The result of `Sink.commit`.

    Attributes:
        head: the end of the chain now.
        won: False if another worker wrote that segment; then adopt `head` and drop the draft.
        rows: rows of the segment.
        size_bytes: bytes of the segment.
        seconds: how long the commit took; nan if it was not measured.
    """

    head: Head
    won: bool
    rows: int
    size_bytes: int
    seconds: float = field(default=float("nan"), compare=False)


class Sink(Protocol):
    """A store with a chain of segments for each partition. A segment is created whole and once, or not at all."""

    @property
    def root_id(self) -> str:
        """The id of the output; "" before `check`."""

    def check(self) -> None:
        """Check that the store refuses to create what exists. Raises SettingsError (with the remedy) if it does not."""

    def began(self, topic: str, identity: TopicIdentity) -> TopicIdentity:
        """Return the topic as it was when the first of its chains began, which is `identity` if none has.

        Partitions beyond those that it had then were added later, and every message in them is new.

        Raises ChainError if `identity` is another topic, StoreUnavailable.
        """

    def recover(self, tp: TopicPartition, identity: TopicIdentity, origin: int) -> Head:
        """Walk the chain to its head; without a chain, claim `origin` as its beginning (the first claim holds).

        Safe to call for a partition that this worker owned before.

        Raises ChainError if the chain was written from another topic or is damaged, and StoreUnavailable.
        """

    def commit(self, draft: SegmentDraft) -> Commit:
        """Write the segment after the recovered head of `draft.tp`, then its traces.

        May be called from any thread, for one partition at a time.

        Raises StoreUnavailable when the store does not answer; calling again with the same draft is safe.
        """

    def newest(self, tp: TopicPartition) -> Sequence[Publication]:
        """Return the rows of the newest segment of a recovered partition, batch by batch; none before the first.

        Raises ChainError, StoreUnavailable.
        """

    def forget(self, tp: TopicPartition) -> None:
        """Free the memory of a partition that this worker no longer owns; it may be recovered again."""


@dataclass(frozen=True, slots=True, eq=False)
class Publication:
    """Something that is published on the topic of results: rows or an alert.

    Attributes:
        attempt: the name of the draft or segment that has it.
        what: a served batch, a frame that was not accepted, rows read from a segment, or an alert.
        by: the pair that served it; None: the publisher knows it.
    """

    attempt: str
    what: Served | Frame | list[RowResult] | Alert
    by: ServedBy | None = None

    @property
    def rows(self) -> int:
        """The number of rows that it publishes; 0 for an alert."""
        if isinstance(self.what, tuple):
            return len(self.what[0])
        if isinstance(self.what, Alert):
            return 0
        return 1 if isinstance(self.what, Frame) else len(self.what)


When: TypeAlias = Literal["early", "committed"]
"""When results are published: once they are served, or once they are durable. Alerts always wait until durable."""


class Results(Protocol):
    """A publisher of results and alerts beside the chain: at least once, in order. It blocks only where it says so.

    The caller ensures that early results are settled before their segment is created, and that committed results and
    alerts of a segment are settled before the next segment is created. The worker that recovers a partition publishes
    those of its newest segment again.
    """

    @property
    def when(self) -> When | None:
        """The time at which results are published; None: never."""

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of results that were taken and are not acknowledged."""

    def send(self, publication: Publication, *, wait: bool) -> bool:
        """Take a result if there is room, or `wait` for room; return False if it was not taken.

        Raises BrokerUnavailable if it was not taken whole; then it is to be sent again.
        """

    def settled(self, *, wait: bool) -> bool:
        """Return True if all that was taken is acknowledged; with `wait`, wait until it is.

        Raises BrokerUnavailable; then it is to be called again.
        """

    def hurry(self, within_s: float) -> None:
        """Bound all waits together, from now to the end of `close`, by `within_s`, because the caller ends soon."""

    def close(self) -> None:
        """Settle and free everything. May be called twice."""


class DeadLetters(Protocol):
    """A publisher of dead letters, the messages that could not be read at all: at least once."""

    def send(self, message: Message, frame: Frame) -> None:
        """Send the original bytes with the reason in `frame`. Blocks when too many bytes are in flight."""

    def flush(self) -> None:
        """Return when everything sent is acknowledged. Raises BrokerUnavailable if that takes too long."""

    def hurry(self, within_s: float) -> None:
        """Bound all waits, as `Results.hurry` does."""

    def close(self) -> None:
        """Flush and free everything. May be called twice."""


class Classifier(Protocol):
    """The model pair: logits at an alpha of the grid."""

    @property
    def alphas(self) -> Sequence[float]:
        """The grid, ascending, from 0 (zero-shot) to 1 (fine-tuned)."""

    @property
    def tail_share(self) -> float:
        """The cost of an image at a second alpha, as a share of a forward, in (0, 1]."""

    def open(self, batches: Sequence[Tensor]) -> Round:
        """Return a round of these batches, which may be evaluated.

        Args:
            batches: a tensor uint8 `[n, 3, S, S]` for each batch, N >= 1 images in all. They must not change before the
                last call of the round.
        """


class Round(Protocol):
    """The images of a round: what does not depend on alpha is computed once for each of them."""

    def evaluate(self, requested: Mapping[int, Sequence[Selection]]) -> Mapping[int, Tensor]:
        """Return the logits of the images that are requested at each alpha, waiting for the device only once.

        Row i of a result depends on image i and on the alpha alone, bit for bit, whatever else is in the call, and
        whatever was called before.

        Args:
            requested: by an alpha's index in `Classifier.alphas`, one or more selections, N >= 1 images in all.

        Returns:
            By the same index, float32 `[N, C]` in CPU memory, in the order of the selections.
        """
