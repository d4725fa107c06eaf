"""What a class prior is worth: points of accuracy of `scene_label` over the served label, on tables of logits.

    python -m tools.method.class_prior FOLDER [--domains NAMES] [--seeds N] [--batch N] [--temperature T]

`adawise evaluate --scene.prior beside --shows few5` measures it beside strategies, in batches of 32. Here all images of
a domain are served at the alpha whose mean entropy over the domain is least, in batches of 16 or of `--batch`, and
`--temperature` divides the logits first, so that below 1 the model is surer than it is here. Cameras show what they
show in `evaluate` (`adawise_lab.evaluate.camera`), 640 images each. In `control` it is every class that the domain has,
equally often, and runs are of so many images of one class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adawise.adapt.prior import Array, ClassPrior
from adawise_lab.evaluate.camera import rare_images, shown
from adawise_lab.evaluate.streams import RUN, Domain
from adawise_lab.evaluate.tables import LogitTable, read_tables

STREAMS = {  # name -> what a camera shows, the order, and the fewest and most images of a run
    "control": ("few100000", "iid", RUN),
    **{shows: (shows, "iid", RUN) for shows in ("few1", "few5", "few10", "few25", "zipf", "changing", "rare")},
    "few5, runs of 4 to 12": ("few5", "runs", (4, 12)),
    "few5, runs of 64 to 200": ("few5", "runs", (64, 200)),
}
IMAGES = 640
_BINS = 15


def probabilities(table: LogitTable, temperature: float) -> Array:
    """Return the probabilities `[n, C]` at the alpha of least mean entropy."""
    found = []
    for z in table.logits.astype(np.float64) / temperature:
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        found.append((-(p * np.log(np.maximum(p, 1e-30))).sum(axis=1).mean(), p))
    best: Array = min(found, key=lambda pair: pair[0])[1]
    return best


def calibration_error(p: Array, right: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error of the largest probabilities, over 15 bins (Guo et al., 2017)."""
    confidence = p.max(axis=1)
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return float(np.abs(np.bincount(bins, right - confidence, _BINS)).sum() / len(p))


def judged(table: LogitTable, stream: str, batch: int, seeds: int, temperature: float = 1.0) -> Array:
    """Return the means over cameras: accuracy of both, gate, calibration error of both, recall of rare ones of both."""
    p, found = probabilities(table, temperature), []
    domain = Domain(table.name, np.arange(len(table)), np.asarray(table.labels))
    shows, order, run = STREAMS[stream]
    places = tuple(np.split(np.zeros(IMAGES, np.int64), range(batch, IMAGES, batch)))  # each an image of the domain
    for seed in range(seeds):
        (batches,) = shown([places], shows, "stationary", order, [domain], seed=seed, run=run)
        rare = rare_images(shows, [domain], seed=seed)
        prior, corrected, gates = ClassPrior(""), [], []
        for rows in batches:
            prior = prior.observed(p[rows])
            corrected.append(prior.corrected(p[rows]))
            gates.append(prior.gate(p.shape[1]))
        rows, numbers = np.concatenate(batches), []
        truth, of_rare = domain.labels[rows], np.isin(rows, rare)
        for q in (p[rows], np.concatenate(corrected)):
            right = q.argmax(axis=1) == truth
            recall = right[of_rare].mean() if of_rare.any() else np.nan
            numbers.append((right.mean(), calibration_error(q, right), recall))
        (was, ece, recall), (now, its_ece, its_recall) = numbers
        found.append((was, now, np.mean(gates), ece, its_ece, recall, its_recall))
    means: Array = np.array(found).mean(axis=0)
    return means


def main() -> None:
    """Print a row for each kind of stream."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--domains", help="names of tables, separated by commas; none: all")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--temperature", type=float, default=1.0)
    args = parser.parse_args()
    tables = read_tables(args.folder, None if args.domains is None else args.domains.split(","))
    print(f"{len(tables)} domains, {args.seeds} cameras each, {IMAGES} images in batches of {args.batch}")
    print("| stream | served | scene_label | worst domain | gate | ECE: served | scene | recall of rare | its worst |")
    print("|---|---|---|---|---|---|---|---|---|")
    for stream in STREAMS:
        domains = np.array([judged(table, stream, args.batch, args.seeds, args.temperature) for table in tables])
        was, _, gate, ece, its_ece = domains.mean(axis=0)[:5]
        gains, recalls = 100 * (domains[:, 1] - domains[:, 0]), 100 * (domains[:, 6] - domains[:, 5])
        rare = f"{recalls.mean():+.1f} | {recalls.min():+.1f}" if stream == "rare" else " | "
        gained = f"{gains.mean():+.1f} | {gains.min():+.1f}"
        print(f"| {stream} | {was:.3f} | {gained} | {gate:.2f} | {ece:.3f} | {its_ece:.3f} | {rare} |")


if __name__ == "__main__":
    main()
