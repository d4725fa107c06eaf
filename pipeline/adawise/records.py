"""The values that pass through the pipeline: message -> frames -> batch -> predictions and trace.

They are frozen, and almost without behaviour. Nothing here knows where a value came from or where it goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from typing_extensions import override

from adawise.errors import Lost, Reason

if TYPE_CHECKING:  # loading them takes up to seconds, and commands without a model or rows need these values too
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

FloatArray: TypeAlias = "npt.NDArray[np.float32]"
IntArray: TypeAlias = "npt.NDArray[np.int32]"
Rows: TypeAlias = "npt.NDArray[np.int64]"

Selection: TypeAlias = "tuple[int, Rows]"
"""The number of a batch of a round, and rows `[m]` of it."""

LabelColumn: TypeAlias = Literal["label", "scene_label"]


def label_column(settings: Mapping[str, Any]) -> LabelColumn | None:
    """Return the column of the rows that results have as their label, by the settings that served.

    Args:
        settings: values by name, as `ports.ServedBy` has them; `scene.prior` is among them unless it is off.

    Returns:
        The column; None without a class prior, or if the settings were not recorded: then there is only `label`.

    Example:
        >>> label_column({"scene.prior": "served"}), label_column({"scene.prior": "beside"})
        ('scene_label', 'label')
    """
    if "scene.prior" not in settings:
        return None
    return "scene_label" if settings["scene.prior"] == "served" else "label"


STATISTICS = ("luminance", "contrast", "gradient", "laplacian", "colourfulness")
"""The appearance statistics in `Frame.statistics`, in order.

They are logarithms of measures of the light, contrast, sharpness, texture and colour of the pixels.
"""

_LATEST_MS = 1000 * int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    @override
    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


BatchEnds = Mapping[TopicPartition, Mapping[str, tuple[Sequence[int], Sequence[int]]]]
"""The offsets of the first and of the last image of each batch, both ascending, by partition and stream."""


class Gap(NamedTuple):
    """The offsets `[first, until)`, which have no rows, and the reason."""

    first: int
    until: int
    reason: Lost = Lost.DELETED

    @classmethod
    def of(cls, stored: Sequence[Any]) -> Gap:
        """Make a gap from its JSON; without a stored reason it is `deleted`, once the only one."""
        first, until, *reason = stored
        return cls(first, until, *map(Lost, reason))

    def stored(self) -> list[Any]:
        """Return the gap's JSON, as `of` reads it."""
        return [self.first, self.until] if self.reason == Lost.DELETED else [*self]


class Switch(NamedTuple):
    """The point from which on a pair of models serves a partition.

    Attributes:
        first: the first offset that it serves.
        pending: earlier offsets that it serves too, because they were pending then.
        pair: the pair's id.
        keeps: streams went on from the states that they had learned with the pair before.
    """

    first: int
    pending: tuple[int, ...]
    pair: str
    keeps: bool = False

    def serves(self, offset: int) -> bool:
        """Return True unless the image at this offset was served before the switch."""
        return offset >= self.first or offset in self.pending


class PairKey(NamedTuple):
    """The key of a pair of models: its id, which is a hash of its content, and the hash of its model's config.

    The id does not cover the config, so that pairs keep the ids that earlier versions gave them. `config` is "" where
    it is not stated: in a chain, and in what an earlier version wrote.
    """

    id: str
    config: str = ""

    def matches(self, other: PairKey) -> bool:
        """Return True if both are the same pair; configs are compared only if both state one."""
        return self.id == other.id and ("" in (self.config, other.config) or self.config == other.config)


def stated_ms(timestamp_ms: int | None) -> int:
    """Return a broker's timestamp in milliseconds, or -1 (not stated) if it is none of 1970 to 2199.

    Producers set timestamps, and may write any number.
    """
    return -1 if timestamp_ms is None or not 0 <= timestamp_ms < _LATEST_MS else timestamp_ms


def time_text(timestamp_ms: int) -> str:
    """Return a broker's timestamp in milliseconds as text for people."""
    if timestamp_ms < 0:
        return "an unknown time"
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{timestamp_ms} ms"


@dataclass(frozen=True, slots=True)
class Missing:
    """The reason why the offsets from `first` to that of the message are not delivered as messages of their own.

    `detail` is for people.
    """

    first: int
    reason: Lost
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One record as the broker delivered it.

    With `missing`, it is no record: it takes the place of offsets that cannot be read, and has the last of them.

    Attributes:
        topic: its topic.
        partition: its partition.
        offset: its offset.
        key: its key, which names the stream.
        value: its bytes; None for a tombstone.
        headers: names and values.
        timestamp_ms: the broker's timestamp in milliseconds since the epoch, -1 if it has none.
        missing: why there is no record.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int = -1
    missing: Missing | None = None

    @property
    def next_offset(self) -> int:
        """The offset after this message, which is the one to commit once the message is done."""
        return self.offset + 1

    @property
    def topic_partition(self) -> TopicPartition:
        """The partition that the message is in."""
        return TopicPartition(self.topic, self.partition)

    @override
    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True, order=True)
class RowId:
    """The identity of one image, stable for ever. Labels that come later are joined by it."""

    topic: str
    partition: int
    offset: int
    index: int

    @override
    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}/{self.index}"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image of a message. Exactly one of `image` and `reason` is set.

    Attributes:
        row_id: its identity.
        kafka_timestamp_ms: the message's timestamp in milliseconds since the epoch, -1 if it has none.
        stream_id: its stream; None only for a rejected frame whose stream is unknown.
        image: uint8 `[3, S, S]`, resized and cropped, not yet normalised.
        reason: why it was rejected or, for missing offsets, lost.
        detail: the reason in words.
        frame_id: the producer's name for it.
        captured_at_us: when it was captured, by its producer, in microseconds since the epoch.
        true_label: its label, if the producer states one.
        meta: other facts that its producer states, and the trace that it belongs to (`decode.headers`).
        note: a mistake of its producer that does no harm to the image.
        statistics: appearance statistics of its pixels, float32 `[5]` (`decode.statistics`).
    """

    row_id: RowId
    kafka_timestamp_ms: int
    stream_id: str | None
    image: Tensor | None = None
    reason: Reason | Lost | None = None
    detail: str | None = None
    frame_id: str | None = None
    captured_at_us: int | None = None
    true_label: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    statistics: FloatArray | None = None


def status_of(frame: Frame) -> str:
    """Return the value of a frame's column `status`: `accepted`, `rejected` or `skipped`."""
    if frame.image is not None:
        return "accepted"
    return "skipped" if frame.reason is Reason.TOMBSTONE else "rejected"


@dataclass(frozen=True, slots=True, eq=False)
class DecodedMessage:
    """The result of decoding one message.

    Attributes:
        message: the message.
        frames: one per image, in order of index; at least one, unless the message is `missing`.
        is_batch: the producer sent a batch, which is adapted as it was sent. Single images are gathered by the worker.
        dead: the message as a whole could not be read, and is sent as a dead letter.
    """

    message: Message
    frames: tuple[Frame, ...]
    is_batch: bool = False
    dead: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ImageBatch:
    """Images of one stream that share one alpha: uint8 `[N, 3, S, S]`. `frames[i]` describes `images[i]`."""

    stream_id: str
    frames: tuple[Frame, ...]
    images: Tensor

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The served predictions of a batch of N images: indices into the class list, and probabilities in [0, 1].

    Row 0 of `endpoint_index` and `endpoint_confidence` is zero-shot (alpha 0), row 1 fine-tuned (alpha 1), for the
    images on which that endpoint was evaluated. They are -1 and nan for the others.
    """

    top_index: IntArray  # [N, k], best first
    top_probability: FloatArray  # [N, k]
    entropy: FloatArray  # [N], nats, of the served distribution
    endpoint_index: IntArray  # [2, N]
    endpoint_confidence: FloatArray  # [2, N]
    scene_index: IntArray | None = None  # [N], of the class corrected by the class prior; None without a prior
    scene_confidence: FloatArray | None = None  # [N]


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row of the output as it is published as a result; the names are those of the columns.

    Values that were not evaluated are None, as are all predictions of an image that was not accepted. `label_column`
    says which column is the label of the result; None if there is no `scene_label`, and so no choice.
    """

    row_id: RowId
    stream_id: str | None
    frame_id: str | None
    captured_at_us: int | None
    kafka_timestamp_ms: int | None
    status: str
    reason: str | None
    detail: str | None
    meta: Mapping[str, str]
    model_fingerprint: str
    top_labels: Sequence[str] | None = None
    top_probabilities: Sequence[float] | None = None
    entropy: float | None = None
    zero_shot_label: str | None = None
    zero_shot_confidence: float | None = None
    fine_tuned_label: str | None = None
    fine_tuned_confidence: float | None = None
    alpha: float | None = None
    batch_number: int | None = None
    predicted_at_us: int | None = None
    scene_label: str | None = None
    scene_confidence: float | None = None
    label_column: LabelColumn | None = None

    @property
    def label(self) -> str | None:
        """The label of the result."""
        if self.label_column == "scene_label":
            return self.scene_label
        return self.top_labels[0] if self.top_labels else None

    @property
    def confidence(self) -> float | None:
        """The probability of `label`."""
        if self.label_column == "scene_label":
            return self.scene_confidence
        return self.top_probabilities[0] if self.top_probabilities else None


@dataclass(frozen=True, slots=True)
class Alert:
    """A change of an alert: a rule holds for a camera now (`raised`), or does not hold any more.

    Attributes:
        rule: the name of the rule.
        kind: the rule's kind, `label` or `silence`.
        raised: True if the rule holds now.
        stream_id: the camera.
        row_id: the image that raised the alert, or the last message of a silent camera. With the rule and the camera,
            it identifies the alert.
        cause: why it changed, as a stable word.
        at: the image that changed the alert; None if none did.
        at_us: when it changed, in microseconds since the epoch.
        label: the label of the image that raised it.
        confidence: the probability of that label.
    """

    rule: str
    kind: str
    raised: bool
    stream_id: str
    row_id: RowId
    cause: str
    at: RowId | None = None
    at_us: int | None = None
    label: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial in the trace: an alpha, the number of images evaluated, the objective (nats; nan if not finite)."""

    alpha: float
    images: int
    objective: float


@dataclass(frozen=True, slots=True)
class Shadow:
    """The result that a staged pair would have served for a batch.

    `agreement` is the share of images on which its label is the served one.
    """

    pair: str
    agreement: float
    alpha: float
    objective: float
    forward_equivalents: float


@dataclass(frozen=True, slots=True)
class BatchTrace:
    """The record of how alpha was chosen for one batch.

    Everything except `milliseconds` and `predicted_at_us` is a function of (state, batch, settings).
    """

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    stream_id: str
    batch_number: int  # of this stream, from 0
    captured_at_us: int | None  # of the batch's last image
    kafka_timestamp_ms: int  # of the batch's last image
    images: int
    alpha: float
    previous_alpha: float | None
    trials: tuple[TrialRecord, ...]
    objective: float
    posterior_mean: float
    posterior_sd: float
    trigger: str  # why other alphas were tried, or "none"
    reset: str | None  # why the state was reset, if it was
    forward_equivalents: float
    audit_regret: float = float("nan")  # by how much an audit found another alpha's objective lower; nan: no audit
    milliseconds: Mapping[str, float] = field(default_factory=dict)  # this batch's share of "forward" and "search"
    predicted_at_us: int | None = None  # since the epoch, by the worker's clock; a column of the rows only
    statistics: Mapping[str, float] = field(default_factory=dict)  # columns NAME_mean and NAME_variance; may be empty
    shadow: Shadow | None = None  # of a pair that was staged then
    rejected: int | None = None  # images of the stream since its batch before; None where an earlier version read them
    condition: int | None = None  # the number of the condition, by the stream's search; None without conditions
    returned: bool | None = None  # True if the stream was in the condition before
    alarm: bool | None = None  # True if alpha is kept from the objective's minimum; None: the strategy has no alarm
    forward_cost: float | None = None  # whole forwards per image; None where an earlier version served the batch
    shortlist: str | None = None  # digest of the stream's shortlist; None if it may show every class
    off_list: Mapping[int, int] | None = None  # class index -> images that show it, surely; None without a shortlist
    scene_gate: float | None = None  # how far the class prior corrects, from 0 to 1; None without a prior
    scene_smoothing: float | None = None  # how far neighbouring frames do; None without smoothing
