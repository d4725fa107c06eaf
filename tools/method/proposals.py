"""What a proposed shortlist is worth: points of accuracy if it is used unread, and the classes that it lacks.

    python -m tools.method.proposals TABLE.npz... [--seeds N] [--sizes N...] [--others] [--fitted TABLE.npz]

A camera shows some classes of a domain, drawn anew for each seed, for 200 batches of 16 images: uniformly, or by Zipf's
law. Its shortlist is proposed from what the rows of these images would store, at alpha .5, as `adawise shortlists`
proposes one. It then serves 200 later batches of the same mix. A class is lost if it has 2 % of the later images or
more and is not on the shortlist.

Later images are drawn from the same photographs; with `--others`, each half of a class's photographs is either before
or after, and classes of one photograph are not shown. Without a card probabilities are not calibrated; with `--fitted`
they have the temperature that fits a table.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from adawise.card.calibration import fit_temperature
from adawise.labels.proposal import CameraEvidence, Proposal, SeenClass
from adawise.settings.tree import PredictSettings
from adawise_lab.evaluate.tables import LogitTable, read_table

SIZES = (5, 10, 25)
BATCHES, IMAGES = 200, 16
ALPHA = 0.5
LOST = 0.02


@dataclass(frozen=True, slots=True)
class Proposed:
    """One camera, and what its shortlist brings to the later images, if one is proposed.

    Attributes:
        is_proposed: whether there is a shortlist; without one nothing changes, and nothing is lost.
        gain: accuracy with the shortlist less the one without.
        right: accuracy with a shortlist of the classes that it shows less the one without.
        classes: classes of the shortlist.
        lost: classes with `LOST` of the images or more that are not on the shortlist.
        shown: classes with `LOST` of the images or more.
    """

    is_proposed: bool
    gain: float = 0.0
    right: float = 0.0
    classes: int = 0
    lost: int = 0
    shown: int = 0


def camera(
    table: LogitTable, size: int, seed: int, *, is_zipf: bool, others: bool = False, temperature: float = 1.0
) -> Proposed:
    """Return what a proposal is worth for one camera of `size` classes.

    Args:
        table: its domain.
        size: the number of classes that it shows.
        seed: of the draws.
        is_zipf: whether they come by Zipf's law.
        others: whether the later images are other photographs than those before.
        temperature: divides the logits.
    """
    rng = np.random.default_rng([seed, size, is_zipf])
    labels = np.asarray(table.labels)
    classes, photographs = np.unique(labels, return_counts=True)
    own = rng.choice(classes[photographs > others], size, replace=False)
    shares = 1 / np.arange(1, size + 1) if is_zipf else np.ones(size)
    before, after = ({c: np.flatnonzero(labels == c) for c in own.tolist()} for _ in range(2))
    if others:
        halves = {c: np.array_split(rng.permutation(rows), 2) for c, rows in before.items()}
        before, after = ({c: half[i] for c, half in halves.items()} for i in range(2))
    z = torch.from_numpy(at_alpha(table)) / temperature
    seen, later = (
        np.array([rng.choice(rows[c]) for c in rng.choice(own, BATCHES * IMAGES, p=shares / shares.sum()).tolist()])
        for rows in (before, after)
    )
    found = Proposal.of(evidence(z[seen], table.class_names))
    if found.problem:
        return Proposed(False)
    places = {name: index for index, name in enumerate(table.class_names)}
    listed = sorted(places[each.name] for each in found.classes)
    counts = np.bincount(labels[later], minlength=len(places))
    shown = np.flatnonzero(counts >= LOST * len(later))
    without, gained, best = (
        float((np.array(among)[z[later][:, among].argmax(-1).numpy()] == labels[later]).mean())
        for among in ([*range(len(places))], listed, sorted(own.tolist()))
    )
    lost = np.setdiff1d(shown, listed)
    return Proposed(True, gained - without, best - without, len(listed), len(lost), len(shown))


def at_alpha(table: LogitTable) -> npt.NDArray[np.float32]:
    """Return the logits `[n, C]` at the alpha of the grid that is nearest to `ALPHA`."""
    z: npt.NDArray[np.float32] = table.logits[int(np.argmin(np.abs(np.array(table.alphas) - ALPHA)))].astype(np.float32)
    return z


def evidence(z: torch.Tensor, classes: tuple[str, ...]) -> CameraEvidence:
    """Return the evidence of a camera's rows, for logits `[n, C]`."""
    top = z.softmax(-1).topk(PredictSettings().top_k)
    weight = torch.zeros(len(classes), dtype=torch.float64)
    weight.index_add_(0, top.indices.flatten(), top.values.double().square().flatten())
    images = top.indices[:, 0].bincount(minlength=len(classes))
    seen = [SeenClass(*each) for each in zip(classes, images.tolist(), weight.tolist(), strict=True)]
    return CameraEvidence("camera", len(z), BATCHES, 0, float(top.values[:, 0].mean()), None, None, tuple(seen))


def main() -> None:
    """Print a row for each domain, and one for all of them, for each size and mix of classes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--others", action="store_true", help="later images are other photographs")
    parser.add_argument("--fitted", metavar="TABLE.npz", type=Path)
    args = parser.parse_args()
    tables, temperature = [read_table(path) for path in args.tables], 1.0
    for table in tables:
        if len(table.class_names) < max(args.sizes):
            parser.error(f"{table.name} has {len(table.class_names)} classes, fewer than --sizes {max(args.sizes)}")
    if args.fitted:
        fitted = read_table(args.fitted)
        temperature = fit_temperature(torch.from_numpy(at_alpha(fitted)), torch.from_numpy(np.asarray(fitted.labels)))
        print(f"temperature {temperature:.2f}")
    print("| shown | domain | proposed | gain | worst camera | the right list | gain of all | classes | lost |")
    print("|---|---|---|---|---|---|---|---|---|")
    for size in args.sizes:
        for is_zipf in (False, True):
            runs = {
                table.name: [
                    camera(table, size, seed, is_zipf=is_zipf, others=args.others, temperature=temperature)
                    for seed in range(args.seeds)
                ]
                for table in tables
            }
            whole = [run for domain in runs.values() for run in domain]
            for name, cameras in [*runs.items(), ("all", whole)]:
                shown = f"{size} by Zipf's law" if is_zipf else f"{size}"
                print(f"| {shown} | {name} | {_row(cameras)} |")


def _row(cameras: list[Proposed]) -> str:
    found = [each for each in cameras if each.is_proposed]
    proposed = f"{len(found)} of {len(cameras)}"
    if not found:
        return f"{proposed} | | | | +0.0 | |"
    gains = [100 * each.gain for each in found]
    lost = f"{sum(each.lost for each in found)} of {sum(each.shown for each in found)}"
    right, classes = np.mean([100 * each.right for each in found]), np.mean([each.classes for each in found])
    points = " | ".join(f"{gain:+.1f}" for gain in (np.mean(gains), min(gains), right, sum(gains) / len(cameras)))
    return f"{proposed} | {points} | {classes:.1f} | {lost}"


if __name__ == "__main__":
    main()
