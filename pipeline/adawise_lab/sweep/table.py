"""The table of a sweep: what each variant serves, compared with the first one on the same images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.compute as pc
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from adawise.labels.benefit.helped import Interval
from adawise.labels.compare.compare import compare, split_roots
from adawise.labels.compare.result import RunDifference
from adawise.output.read.rows import read_predictions
from adawise.text import counted
from adawise_lab.sweep.grid import Variant, in_words

_MANY = 3  # variants, from which on the best by the same labels is noticeably flattered


@dataclass(frozen=True, slots=True)
class CameraFigures:
    """The figures of a camera in a variant. `labelled` images count for the accuracies; without any, these are None."""

    images: int
    relabelled: int  # rows with another label than in the first variant
    forward_equivalents: float | None
    labelled: int
    accuracy: float | None
    difference: float | None  # of the accuracy, to the first variant


@dataclass(frozen=True, slots=True)
class VariantFigures:
    """The figures of a variant. Of one that failed, `failed` says why, and the others are None.

    Attributes:
        variant: its number, from 0.
        settings: the values by which it differs.
        images: how many it served; rejected ones are not among them.
        relabelled: of the rows that the first variant has too, how many have another label.
        forward_equivalents: mean number of forwards of an image; 1 for plain CLIP.
        labelled: the images that have a label.
        accuracy: of these, with its 95 % interval.
        difference: of the accuracy to that of the first variant, on the same images.
        cameras: by name; messages without a camera are not among them.
        failed: why it failed, or "".
    """

    variant: int
    settings: Variant
    images: int | None = None
    relabelled: int | None = None
    forward_equivalents: float | None = None
    labelled: int = 0
    accuracy: Interval | None = None
    difference: Interval | None = None
    cameras: Mapping[str, CameraFigures] | None = None
    failed: str = ""


@dataclass(frozen=True, slots=True)
class SweepFigures:
    """The figures of all variants, where the labels came from, and notes on them."""

    recording: str
    variants: Sequence[VariantFigures]
    labels: str
    notes: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


def figures(
    recording: str,
    variants: Sequence[Variant],
    roots: Sequence[str],
    failed: Mapping[int, str],
    *,
    labels: str | None = None,
    within_us: int = 0,
) -> SweepFigures:
    """Compare each variant with the first that did not fail.

    Args:
        recording: the name of what was replayed.
        variants: the values of each variant.
        roots: the folder of each variant.
        failed: why a variant failed, by its number.
        labels: a file of labels; None: those that the producer sent.
        within_us: how far a label's time may be from its frame's, microseconds.

    Raises:
        SettingsError: the file of labels cannot be used, or DuckDB is not installed.
        ChainError, StoreUnavailable: an output cannot be read.
    """
    done = [number for number in range(len(variants)) if number not in failed]
    found: dict[int, VariantFigures] = {
        number: VariantFigures(number, variants[number], failed=why) for number, why in failed.items()
    }
    source, notes = "", list[str]()
    served = {number: _served(roots[number]) for number in done}
    for number in done:
        compared = compare(
            split_roots(roots[done[0]]), split_roots(roots[number]), labels=labels, label_within_us=within_us
        )
        source, notes = compared.by_labels.source, list(compared.by_labels.notes)
        found[number] = _of(number, variants[number], compared, served[number])
    if done and done[0]:
        notes.append(f"variant 0 failed: differences are to variant {done[0]}")
    labelled = any(each.labelled for each in found.values())
    if labelled and len(done) >= _MANY:
        notes.append(f"the best of {len(done)} variants looks better than it is: confirm it on other labels")
    return SweepFigures(recording, [found[number] for number in sorted(found)], source if labelled else "", notes)


def _served(root: str) -> Counter[str | None]:
    """Return the number of images that were served of each camera."""
    found = Counter[str | None]()
    for each in split_roots(root):
        for batch in read_predictions(each, columns=["stream_id", "status"]).batches():
            counts = batch.filter(pc.equal(batch["status"], "accepted"))["stream_id"].value_counts()
            found.update({count["values"].as_py(): count["counts"].as_py() for count in counts})
    return found


def _of(number: int, variant: Variant, compared: RunDifference, served: Counter[str | None]) -> VariantFigures:
    totals, whole = compared.totals, compared.by_labels.whole
    cameras: dict[str, CameraFigures] = {}
    for stream in compared.streams:
        if stream.stream_id is not None:
            right_of_first, right = stream.right
            n = stream.labelled
            cameras[stream.stream_id] = CameraFigures(
                images=served[stream.stream_id],
                relabelled=stream.relabelled,
                forward_equivalents=stream.forward_equivalents[1],
                labelled=n,
                accuracy=right / n if n else None,
                difference=(right - right_of_first) / n if n else None,
            )
    return VariantFigures(
        number,
        variant,
        images=served.total(),
        relabelled=totals.relabelled,
        forward_equivalents=totals.forward_equivalents[1],
        labelled=0 if whole is None else whole.images,
        accuracy=None if whole is None else whole.accuracy[1],
        difference=None if whole is None else whole.difference,
        cameras=dict(sorted(cameras.items())),
    )


def show(found: SweepFigures, console: Console) -> None:
    """Print the table: a line for each variant."""
    names = [*(found.variants[0].settings if found.variants else ())]
    table = Table(box=SIMPLE_HEAD)
    for name in ("variant", *names):
        table.add_column(name, overflow="fold")
    for name in ("images", "forwards per image", "other label", "accuracy", "difference to the first", "95 %"):
        table.add_column(name, justify="right")
    for each in found.variants:
        table.add_row(str(each.variant), *(each.settings[name] for name in names), *_cells(each))
    console.print(table)
    if found.labels:
        most = max(each.labelled for each in found.variants)
        console.print(f"accuracy of {counted(most, 'labelled image')}; labels from {found.labels}", soft_wrap=True)
    for each in found.variants:
        if each.failed:
            console.print(f"variant {each.variant} ({in_words(each.settings)}) failed: {each.failed}", soft_wrap=True)
    for note in found.notes:
        console.print(note, soft_wrap=True)


def _cells(each: VariantFigures) -> list[str]:
    if each.failed or each.images is None:
        return ["failed", *["-"] * 5]
    forwards = "-" if each.forward_equivalents is None else f"{each.forward_equivalents:.2f}"
    other = f"{100 * (each.relabelled or 0) / max(each.images, 1):.1f} %"
    cells = [f"{each.images:,}", forwards, other]
    if each.accuracy is None or each.difference is None:
        return [*cells, "-", "-", "-"]
    by = each.difference
    ends = f"{by.low:+.3f} to {by.high:+.3f}" if by.is_known else "-"
    return [*cells, f"{each.accuracy.value:.3f}", f"{by.value:+.3f}", ends]
