"""The result of comparing two runs, as values; `as_json` is what `adawise diff --json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from adawise.labels.benefit.helped import Interval


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One of the two runs, as described by the heads of its chains and its batches."""

    root: str
    models: tuple[str, ...]  # fingerprints; several if they changed on the way
    settings: tuple[str, ...]
    partitions: int
    states_of: tuple[str, ...] = ()  # segments of another root that it continued from
    unnoted: tuple[str, ...] = ()  # fingerprints in `settings` that the root does not explain
    label_columns: tuple[str, ...] = ()  # columns that results had as label, where there was a choice


@dataclass(frozen=True, slots=True)
class SettingDifference:
    """A setting, or another input that decides results (pair, machine), and its values in each run, in order.

    A value is None if that run does not know it, or has none.
    """

    name: str
    a: tuple[Any, ...]
    b: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class FirstBatch:
    """The first batch of a stream in which the runs differ: what differs first, and both sides of it.

    A side is None if that run has no batch that begins with this message: it formed its batches differently.
    """

    first_offset: int
    what: tuple[str, ...]  # columns of the traces: where the batch ends, then alpha, then what led to it
    a: Mapping[str, Any] | None
    b: Mapping[str, Any] | None
    last_of_its_run: bool  # no batch of the stream follows in the run whose batch is smaller, so its end cut it short


@dataclass(frozen=True, slots=True)
class FirstRow:
    """The first image of a stream whose rows differ, or that only one run has although the other has read it."""

    row_id: str
    what: tuple[str, ...]  # columns of the predictions; empty if only one run has the image
    only_in: str | None  # "a", "b"
    label: tuple[str | None, str | None]
    confidence: tuple[float | None, float | None]
    alpha: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class StreamDifference:
    """One stream of a partition; `stream_id` is None for messages without one. Pairs are (a, b)."""

    topic: str
    partition: int
    stream_id: str | None
    images: int  # rows that both have
    differing: int  # of the images: rows that differ
    relabelled: int  # of the images: rows with another label
    alone: tuple[int, int]  # rows that only one run has, although the other has read that far
    beyond: tuple[int, int]  # rows that only one run has, where the other has not read
    batches: int  # that both have
    batches_differing: int  # including those that only one run has
    batches_apart: int  # of those that both have: with another alpha
    alpha_mean: float | None  # mean |alpha_a - alpha_b| over images
    alpha_max: float | None
    labelled: int
    right: tuple[int, int]
    forward_equivalents: tuple[float | None, float | None]
    first_batch: FirstBatch | None
    first_row: FirstRow | None

    @property
    def differs(self) -> bool:
        """True unless the two are equal in all that both have read."""
        return bool(self.differing or any(self.alone) or self.batches_differing)


@dataclass(frozen=True, slots=True)
class Accuracies:
    """The accuracy of both runs on images that have a label and that both served. Pairs are (a, b)."""

    images: int
    batches: int
    right: tuple[int, int]
    accuracy: tuple[Interval, Interval]
    difference: Interval  # accuracy of b minus that of a


@dataclass(frozen=True, slots=True)
class ByLabels:
    """The comparison of both runs by labels from `source`. `whole` is None without labels."""

    source: str
    whole: Accuracies | None
    streams: Mapping[str, Accuracies]  # those with enough labels to be judged by themselves
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class ClassAgreement:
    """The agreement on one class: how many images each run labels so, and how many both do."""

    name: str
    a: int
    b: int
    both: int

    @property
    def agreement(self) -> float:
        """The share of images that both runs label so, among those that either does."""
        return self.both / max(self.a + self.b - self.both, 1)


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals over all streams. Pairs are (a, b)."""

    images: int
    differing: int
    relabelled: int
    given_differing: int  # the producer's data differs: not the same messages
    renumbered: int  # rows whose batch has another number
    alone: tuple[int, int]
    beyond: tuple[int, int]
    batches: int
    batches_differing: int
    batches_apart: int
    alpha_mean: float | None
    alpha_max: float | None
    images_apart: int
    kappa: float | None  # Cohen's, of the labels; None if both serve only one and the same class, or nothing
    labelled: int
    accuracy: tuple[float | None, float | None]
    forward_equivalents: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class RunDifference:
    """The result of `compare`."""

    settings: Sequence[SettingDifference]  # those that differ, as far as the roots recorded them
    a: ComparedRun
    b: ComparedRun
    totals: Totals
    by_labels: ByLabels
    streams: Sequence[StreamDifference]  # those that differ first, then by name
    classes: Sequence[ClassAgreement]  # by name

    @property
    def differs(self) -> bool:
        """True unless the runs are equal in all that both have read."""
        return any(stream.differs for stream in self.streams)

    @property
    def overlaps_wholly(self) -> bool:
        """True if neither run has an image that the other lacks."""
        return not (any(self.totals.alone) or any(self.totals.beyond))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object; each stream and class also has what its properties compute."""
        document = {"equal": not self.differs, "overlaps_wholly": self.overlaps_wholly, **asdict(self)}
        for stream, found in zip(document["streams"], self.streams, strict=True):
            stream["equal"] = not found.differs
        for one, agreement in zip(document["classes"], self.classes, strict=True):
            one["agreement"] = agreement.agreement
        return document
