"""What a proposed shortlist is worth: points of accuracy if it is used unread, and the classes that it lacks.

    python -m tools.method.proposals TABLE.npz... [--seeds N] [--sizes N...]

A camera shows some classes of a domain, drawn anew for each seed, for 200 batches of 16 images: uniformly, or by Zipf's
law. Its shortlist is proposed from what the rows of these images would store, at alpha .5 without a card, as `adawise
shortlists` proposes one. A class is lost if it has 2 % of the images or more and is not on the shortlist.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from adawise.labels.proposal import CameraEvidence, Proposal, SeenClass
from adawise.settings.tree import PredictSettings
from adawise_lab.evaluate.tables import LogitTable, read_table

SIZES = (5, 10, 25)
BATCHES, IMAGES = 200, 16
ALPHA = 0.5
LOST = 0.02


@dataclass(frozen=True, slots=True)
class Proposed:
    """One camera: its mean confidence, and of its shortlist, if one is proposed, what it brings.

    Attributes:
        is_proposed: whether there is a shortlist; without one nothing changes, and nothing is lost.
        gain: accuracy with the shortlist less the one without.
        classes: classes of the shortlist.
        lost: classes with `LOST` of the images or more that are not on the shortlist.
        shown: classes with `LOST` of the images or more.
    """

    is_proposed: bool
    gain: float = 0.0
    classes: int = 0
    lost: int = 0
    shown: int = 0


def camera(table: LogitTable, size: int, seed: int, *, is_zipf: bool) -> Proposed:
    """Return what a proposal is worth for one camera of `size` classes."""
    rng = np.random.default_rng([seed, size, is_zipf])
    labels = np.asarray(table.labels)
    own = rng.choice(np.unique(labels), size, replace=False)
    shares = 1 / np.arange(1, size + 1) if is_zipf else np.ones(size)
    of_images = rng.choice(own, BATCHES * IMAGES, p=shares / shares.sum())
    rows = np.array([rng.choice(np.flatnonzero(labels == each)) for each in of_images])
    z = torch.from_numpy(table.logits[int(np.argmin(np.abs(np.array(table.alphas) - ALPHA)))].astype(np.float32))[rows]
    found = Proposal.of(evidence(z, table.class_names))
    if found.problem:
        return Proposed(False)
    places = {name: index for index, name in enumerate(table.class_names)}
    listed = sorted(places[each.name] for each in found.classes)
    among = np.array(listed)[z[:, listed].argmax(-1).numpy()]
    right, before = among == of_images, z.argmax(-1).numpy() == of_images
    counts = np.bincount(of_images, minlength=len(places))
    shown = np.flatnonzero(counts >= LOST * len(rows))
    lost = np.setdiff1d(shown, listed)
    return Proposed(True, float(right.mean() - before.mean()), len(listed), len(lost), len(shown))


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
    args = parser.parse_args()
    tables = [read_table(path) for path in args.tables]
    print("| shown | domain | proposed | gain | worst camera | classes | lost |")
    print("|---|---|---|---|---|---|---|")
    for size in args.sizes:
        for is_zipf in (False, True):
            runs = {
                table.name: [camera(table, size, seed, is_zipf=is_zipf) for seed in range(args.seeds)]
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
        return f"{proposed} | | | |"
    gains = [100 * each.gain for each in found]
    lost = f"{sum(each.lost for each in found)} of {sum(each.shown for each in found)}"
    classes = np.mean([each.classes for each in found])
    return f"{proposed} | {np.mean(gains):+.1f} | {min(gains):+.1f} | {classes:.1f} | {lost}"


if __name__ == "__main__":
    main()
