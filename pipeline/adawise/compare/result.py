"""What a comparison of two runs found, as values; `as_json` is what `adawise diff --json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from adawise.drift.judge.helped import Interval


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One of the two runs, as its chains' heads and its batches tell it."""

    root: str
    models: tuple[str, ...]  # fingerprints; several if they changed on the way
    settings: tuple[str, ...]
    partitions: int
    states_of: tuple[str, ...] = ()  # segments of another root that it went on from
    unnoted: tuple[str, ...] = ()  # of `settings`, those of which the root does not say what they are


@dataclass(frozen=True, slots=True)
class SettingDifference:
    """A setting, or what of the pair and the machine decides results, and its values in each run, as they came.

    A value is None where that run does not know it, or has none.
    """

    name: str
    a: tuple[Any, ...]
    b: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class FirstBatch:
    """The first batch of a stream in which the runs part: what differs first, and both sides of it.

    A side is None where that run has no batch that begins with this message: it cut its batches elsewhere.
    """

    first_offset: int
    what: tuple[str, ...]  # columns of the traces: where the batch ends, then alpha, then what led to it
    a: Mapping[str, Any] | None
    b: Mapping[str, Any] | None
    last_of_its_run: bool  # no batch of the stream follows in the run whose batch is smaller, so its end cut it short


@dataclass(frozen=True, slots=True)
class FirstRow:
    """The first image of a stream whose rows differ, or that only one run has although the other read it."""

    row_id: str
    what: tuple[str, ...]  # columns of the predictions; empty if only one run has the image
    only_in: str | None  # "a", "b"
    label: tuple[str | None, str | None]
    confidence: tuple[float | None, float | None]
    alpha: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class StreamDifference:
    """One stream of a partition; `stream_id` is None for messages that said none. Pairs are (a, b)."""

    topic: str
    partition: int
    stream_id: str | None
    images: int  # rows that both have
    differing: int  # of them
    relabelled: int  # of them: another label is served
    alone: tuple[int, int]  # rows that one has and the other does not, although it read that far
    beyond: tuple[int, int]  # rows of one where the other did not read
    batches: int  # that both have
    batches_differing: int  # or that one alone has
    batches_apart: int  # of those that both have: other alphas
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
    """How often both runs are right on images that have a label and that both served. Pairs are (a, b)."""

    images: int
    batches: int
    right: tuple[int, int]
    accuracy: tuple[Interval, Interval]
    difference: Interval  # accuracy of b less that of a


@dataclass(frozen=True, slots=True)
class ByLabels:
    """Which of the two is right more often, by labels from `source`. `whole` is None without a label."""

    source: str
    whole: Accuracies | None
    streams: Mapping[str, Accuracies]  # those with enough labels to be judged alone
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class ClassAgreement:
    """Of one class: how many images each run calls so, and how many both."""

    name: str
    a: int
    b: int
    both: int

    @property
    def agreement(self) -> float:
        """Of the images that either calls so, the share that both do."""
        return self.both / max(self.a + self.b - self.both, 1)


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all streams together. Pairs are (a, b)."""

    images: int
    differing: int
    relabelled: int
    given_differing: int  # what the producer said differs: not the same messages
    renumbered: int  # rows whose batch has another number
    alone: tuple[int, int]
    beyond: tuple[int, int]
    batches: int
    batches_differing: int
    batches_apart: int
    alpha_mean: float | None
    alpha_max: float | None
    images_apart: int
    kappa: float | None  # Cohen's, of the labels; None if both serve one class alone, or nothing
    labelled: int
    accuracy: tuple[float | None, float | None]
    forward_equivalents: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class RunDifference:
    """What `compare` found."""

    settings: Sequence[SettingDifference]  # those that differ, as far as the roots say them
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
        """True if neither run has an image that the other has not."""
        return not (any(self.totals.alone) or any(self.totals.beyond))

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON wants it; streams without a difference have their counts alone."""
        said = {"equal": not self.differs, "overlaps_wholly": self.overlaps_wholly, **asdict(self)}
        for stream, found in zip(said["streams"], self.streams, strict=True):
            stream["equal"] = not found.differs
        for one, agreement in zip(said["classes"], self.classes, strict=True):
            one["agreement"] = agreement.agreement
        return said
