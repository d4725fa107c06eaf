"""The values that travel down the stream: message -> frames -> batch -> predictions and trace.

Frozen, without behaviour beyond the off-by-one of `next_offset`. Nothing here knows where a value came from or goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from adawise.errors import Lost, Reason

if TYPE_CHECKING:  # loading torch takes seconds, and commands without a model need these values too
    from torch import Tensor

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

STATISTICS = ("luminance", "contrast", "gradient", "laplacian", "colourfulness")
"""What `Frame.statistics` are, in order: logarithms of light, contrast, sharpness, texture and colour of the pixels."""

_LATEST_MS = 1000 * int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    @override
    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


BatchEnds = Mapping[TopicPartition, Mapping[str, tuple[Sequence[int], Sequence[int]]]]
"""By partition and stream, the offsets of the first and of the last image of each batch, both ascending."""


class Gap(NamedTuple):
    """Offsets `[first, until)` that have no rows, and why."""

    first: int
    until: int
    reason: Lost = Lost.DELETED

    @classmethod
    def of(cls, stored: Sequence[Any]) -> Gap:
        """From JSON; where no reason is stored, it is the one that once was the only one."""
        first, until, *reason = stored
        return cls(first, until, *map(Lost, reason))

    def stored(self) -> list[Any]:
        """For JSON."""
        return [self.first, self.until] if self.reason == Lost.DELETED else [*self]


class Switch(NamedTuple):
    """From where on a pair of models serves a partition: images from `first` on, and those that were `pending` then.

    `pair` is the pair's id. `keeps`: streams went on from what they had learned with the pair before.
    """

    first: int
    pending: tuple[int, ...]
    pair: str
    keeps: bool = False

    def serves(self, offset: int) -> bool:
        """True unless the image at this offset was served before."""
        return offset >= self.first or offset in self.pending


class PairKey(NamedTuple):
    """Which pair of models it is: its id, which is a hash of what it holds, and the hash of its model's config.

    The id leaves the config out, or each pair of an earlier version would be another one. `config` is "" where nothing
    says it: in a chain, and in what an earlier version wrote.
    """

    id: str
    config: str = ""

    def matches(self, other: PairKey) -> bool:
        """Return whether both are the same pair, as far as both name their config."""
        return self.id == other.id and ("" in (self.config, other.config) or self.config == other.config)


def stated_ms(timestamp_ms: int | None) -> int:
    """A broker's timestamp, or -1 (not stated) for one beyond 1970-2199: producers set it, and may write any number."""
    return -1 if timestamp_ms is None or not 0 <= timestamp_ms < _LATEST_MS else timestamp_ms


def told(timestamp_ms: int) -> str:
    """A broker's timestamp in milliseconds, for people."""
    if timestamp_ms < 0:
        return "an unknown time"
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{timestamp_ms} ms"


@dataclass(frozen=True, slots=True)
class Missing:
    """Why the offsets from `first` to that of the message are not delivered, one by one; `detail` is for people."""

    first: int
    reason: Lost
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One record as the broker delivered it; `timestamp_ms` is the broker's, since the epoch, -1 if it has none.

    With `missing` it is none, but stands for those that nobody can read, of which it has the last offset.
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
        """The offset to commit once this message is done: the one after it."""
        return self.offset + 1

    @property
    def topic_partition(self) -> TopicPartition:
        """Where the message lies."""
        return TopicPartition(self.topic, self.partition)

    @override
    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True, order=True)
class RowId:
    """The identity of one image, stable for ever: labels that come later are joined by it."""

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

    `image` is uint8 `[3, S, S]`, resized and cropped, not yet normalised; `statistics` are float32 `[5]`, of its pixels
    (`decode.statistics`). `captured_at_us` is in microseconds since the epoch, `kafka_timestamp_ms` in milliseconds.
    `meta` is what its producer says beside that, and the trace that it belongs to (`decode.trace_context`).
    `note` is what its producer got wrong without harm to the image. `stream_id` is None only for a rejected frame whose
    stream is unknown.
    """

    row_id: RowId
    kafka_timestamp_ms: int
    stream_id: str | None
    image: Tensor | None = None
    reason: Reason | Lost | None = None  # the latter for what is missing
    detail: str | None = None
    frame_id: str | None = None
    captured_at_us: int | None = None
    true_label: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    statistics: FloatArray | None = None


def status_of(frame: Frame) -> str:
    """The column `status` of a frame."""
    if frame.image is not None:
        return "accepted"
    return "skipped" if frame.reason is Reason.TOMBSTONE else "rejected"


@dataclass(frozen=True, slots=True, eq=False)
class DecodedMessage:
    """What `decode` made of one message: one frame per image, in order of index; at least one, unless it is `missing`.

    `is_batch`: the producer sent a batch, which is adapted as it was sent; single images are gathered by the worker.
    `dead`: the message as a whole could not be read, and belongs in the dead-letter topic.
    """

    message: Message
    frames: tuple[Frame, ...]
    is_batch: bool = False
    dead: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ImageBatch:
    """Images of one stream that share one alpha: uint8 `[N, 3, S, S]`, `frames[i]` describes `images[i]`."""

    stream_id: str
    frames: tuple[Frame, ...]
    images: Tensor

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What is served for a batch of N images; class indices into the class list, probabilities in [0, 1].

    `endpoint_index` and `endpoint_confidence` are `[2, N]`, row 0 zero-shot (alpha 0), row 1 fine-tuned (alpha 1), for
    the images on which that endpoint was evaluated; elsewhere -1 and nan.
    """

    top_index: IntArray  # [N, k], best first
    top_probability: FloatArray  # [N, k]
    entropy: FloatArray  # [N], nats, of the served distribution
    endpoint_index: IntArray  # [2, N]
    endpoint_confidence: FloatArray  # [2, N]


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row of the output as it is told beside it; the names are those of its columns.

    What was not evaluated is None, and all that the model says where the image was not accepted.
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


@dataclass(frozen=True, slots=True)
class Alert:
    """That a rule holds of a camera now, or does not any more (`raised`). Times in microseconds since the epoch.

    With the rule and the camera, `row_id` is its identity: of the image that raised it, or the last message of a silent
    camera. `at` is the image that changed it, None if none did; `label` and `confidence` are of the one that raised it.
    """

    rule: str
    kind: str  # label or silence
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
    """One trial as the trace keeps it: alpha, how many images it saw, the objective (nats; nan if not finite)."""

    alpha: float
    images: int
    objective: float


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a staged pair would have served for a batch; `agreement` is the share of images with the same label."""

    pair: str
    agreement: float
    alpha: float
    objective: float
    forward_equivalents: float


@dataclass(frozen=True, slots=True)
class BatchTrace:
    """How alpha was chosen for one batch. All but `milliseconds` is a function of (state, batch, settings)."""

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
    trigger: str  # why alternatives were tried, or "none"
    reset: str | None  # why the state was reset, if it was
    forward_equivalents: float
    audit_regret: float = float("nan")  # what an audit found another alpha to be lower by; nan without an audit
    milliseconds: Mapping[str, float] = field(default_factory=dict)  # this batch's share of "forward" and "search"
    predicted_at_us: int | None = None  # since the epoch, by the clock of the worker; a column of the rows alone
    statistics: Mapping[str, float] = field(default_factory=dict)  # the columns NAME_mean and NAME_variance; or none
    shadow: Shadow | None = None  # of a pair that was staged then
    rejected: int | None = None  # images of the stream since its batch before; None where an earlier version read them
    condition: int | None = None  # the number that the stream's search gave it; None where it has none
    returned: bool | None = None  # True if the stream was in it before
    alarm: bool | None = None  # True if alpha is kept from where the objective would have it; None: nobody looks
