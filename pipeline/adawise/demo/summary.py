"""The summary of a run: is the output complete, how accurate was it, and how accurate are fixed alphas?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from adawise.demo.script import CameraScript

COLUMNS = ["partition", "offset", "frame_id", "status", "label", "true_label", "meta", "alpha"]
"""The columns of the predictions that a summary needs."""


@dataclass(slots=True)
class CameraPath:
    """Alpha over the batches of one camera, one entry per batch.

    Attributes:
        numbers: the number of the batch's last frame, ascending.
        alphas: the alpha that served the batch, in [0, 1].
        triggers: why other alphas were tried; None if none were.
        conditions: the number of the condition that the search recognised; None if it has none.
    """

    numbers: list[int] = field(default_factory=list)
    alphas: list[float] = field(default_factory=list)
    triggers: list[str | None] = field(default_factory=list)
    conditions: list[int | None] = field(default_factory=list)

    def add(self, number: int, alpha: float, trigger: str | None, condition: int | None = None) -> None:
        """Add a batch."""
        self.numbers.append(number)
        self.alphas.append(alpha)
        self.triggers.append(trigger)
        self.conditions.append(condition)


@dataclass(frozen=True, slots=True)
class ConditionScore:
    """Accuracies in [0, 1] on the images of one condition, and the mean alpha that served them."""

    condition: str
    images: int
    served: float
    zero_shot: float
    fine_tuned: float
    middle: float
    alpha: float


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A whole run. `seconds` is from when the worker was ready to the last served batch."""

    images_in: int
    rows_out: int
    problems: tuple[str, ...]
    seconds: float
    forward_equivalents: float
    objective: str
    scores: tuple[ConditionScore, ...]


def missing(rows: pa.Table, cameras: Sequence[CameraScript], acknowledged: Sequence[int]) -> list[str]:
    """Describe which images are not exactly once in the output; [] if the rows match the acknowledged images.

    Args:
        rows: the predictions.
        cameras: by partition.
        acknowledged: how many images of each camera the broker has.
    """
    expected = {
        camera.frame_id(number) for camera, count in zip(cameras, acknowledged, strict=True) for number in range(count)
    }
    found = rows["frame_id"].to_pylist()
    problems = []
    if lost := sorted(expected - set(found)):
        problems.append(f"{len(lost)} images are not in the output, the first is {lost[0]}")
    if len(found) != len(set(found)):
        problems.append(f"{len(found) - len(set(found))} rows are there more than once")
    if foreign := sorted(str(name) for name in set(found) - expected):
        problems.append(f"{len(foreign)} rows are of images that were not sent, the first is {foreign[0]}")
    if rejected := len(found) - rows["status"].to_pylist().count("accepted"):
        problems.append(f"{rejected} images were rejected, but none should be")
    return problems


def scores(rows: pa.Table, fixed: Mapping[tuple[int, int], tuple[str, ...]]) -> list[ConditionScore]:
    """Return the scores of each condition, in the order of their first images, and of all under the name `all`.

    `fixed` has the labels at alpha 0, 1 and .5 by (partition, offset).
    """
    groups: dict[str, list[tuple[bool, bool, bool, bool, float]]] = {}
    for row in rows.to_pylist():
        labels = fixed.get((row["partition"], row["offset"]))
        if row["status"] != "accepted" or labels is None:
            continue  # `missing` reports such a row
        zero_shot, fine_tuned, middle = (label == row["true_label"] for label in labels)
        hit = (row["label"] == row["true_label"], zero_shot, fine_tuned, middle, row["alpha"])
        groups.setdefault(dict(row["meta"])["condition"], []).append(hit)
    if groups:
        groups["all"] = [hit for hits in groups.values() for hit in hits]
    return [
        ConditionScore(condition, len(hits), *(sum(column) / len(hits) for column in zip(*hits, strict=True)))
        for condition, hits in groups.items()
    ]
