"""What a class prior is worth: points of accuracy of `scene_label` over the served label, on tables of logits.

    python -m tools.method.class_prior FOLDER [--domains NAMES] [--seeds N] [--batch N] [--temperature T]

A camera shows classes of a domain in batches of 16 images, or of `--batch`, all served at the alpha whose mean entropy
over the domain is least; `--temperature` divides the logits first, so that below 1 the model is surer than it is here.
A domain may have images of some of its classes only, and `control` and `zipf` show these. Kinds of stream: `control`,
all of them, equally frequent; `few5` and so on, as many of them, equally frequent; `zipf`, all, of frequencies 1, 1/2,
1/3 and so on; `changing`, five others every 192 images; `runs4-12` and so on, five, in runs of so many images of one
class; `rare`, four common ones and two of 4 %, for which the recall of the two is given too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adawise.adapt.prior import Array, ClassPrior
from adawise_lab.evaluate.tables import LogitTable, read_tables

KINDS = ("control", "few1", "few5", "few10", "few25", "zipf", "changing", "rare", "runs4-12", "runs64-200")
IMAGES = 640
_BINS = 15
Places = npt.NDArray[np.int64]


def probabilities(table: LogitTable, temperature: float) -> Array:
    """Return the probabilities `[n, C]` at the alpha of least mean entropy."""
    found = []
    for z in table.logits.astype(np.float64) / temperature:
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        found.append((-(p * np.log(np.maximum(p, 1e-30))).sum(axis=1).mean(), p))
    best: Array = min(found, key=lambda pair: pair[0])[1]
    return best


def rows_of(kind: str, labels: Places, rng: np.random.Generator) -> tuple[Places, Places]:
    """Return the rows that a camera shows, in order, and its rare classes."""
    present = np.unique(labels)
    rows = {int(c): np.flatnonzero(labels == c) for c in present}

    def some(count: int) -> Places:
        return rng.choice(present, min(count, len(present)), replace=False)

    def drawn(classes: Places, shares: Array | None = None, images: int = IMAGES) -> list[int]:
        return [rng.choice(rows[int(c)]) for c in rng.choice(classes, images, p=shares)]

    rare = np.empty(0, np.int64)
    if kind == "control":
        found = drawn(present)
    elif kind == "zipf":
        shares = 1.0 / np.arange(1, len(present) + 1)
        found = drawn(rng.permutation(present), shares / shares.sum())
    elif kind == "changing":
        found = [row for _ in range(0, IMAGES, 192) for row in drawn(some(5), images=192)][:IMAGES]
    elif kind == "rare":
        chosen = some(6)
        shares = np.array([0.04, 0.04, *[0.92 / (len(chosen) - 2)] * (len(chosen) - 2)])
        found, rare = drawn(chosen, shares), chosen[:2]
    elif kind.startswith("runs"):
        shortest, longest = map(int, kind.removeprefix("runs").split("-"))
        chosen, found = some(5), []
        while len(found) < IMAGES:
            found += rng.choice(rows[int(rng.choice(chosen))], rng.integers(shortest, longest + 1)).tolist()
    else:
        found = drawn(some(int(kind.removeprefix("few"))))
    return np.array(found[:IMAGES]), rare


def calibration_error(p: Array, right: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error of the largest probabilities, over 15 bins (Guo et al., 2017)."""
    confidence = p.max(axis=1)
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return float(np.abs(np.bincount(bins, right - confidence, _BINS)).sum() / len(p))


def judged(table: LogitTable, kind: str, batch: int, seeds: int, temperature: float = 1.0) -> Array:
    """Return the means over cameras: accuracy of both, gate, calibration error of both, recall of rare ones of both."""
    p, labels, found = probabilities(table, temperature), np.asarray(table.labels), []
    for seed in range(seeds):
        rows, rare = rows_of(kind, labels, np.random.default_rng([seed, KINDS.index(kind)]))
        prior, corrected, gates = ClassPrior(""), [], []
        for start in range(0, IMAGES, batch):
            some = p[rows[start : start + batch]]
            prior = prior.observed(some)
            corrected.append(prior.corrected(some))
            gates.append(prior.gate(p.shape[1]))
        truth, numbers = labels[rows], []
        of_rare = np.isin(truth, rare)
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
    for kind in KINDS:
        domains = np.array([judged(table, kind, args.batch, args.seeds, args.temperature) for table in tables])
        was, _, gate, ece, its_ece = domains.mean(axis=0)[:5]
        gains, recalls = 100 * (domains[:, 1] - domains[:, 0]), 100 * (domains[:, 6] - domains[:, 5])
        rare = f"{recalls.mean():+.1f} | {recalls.min():+.1f}" if kind == "rare" else " | "
        gained = f"{gains.mean():+.1f} | {gains.min():+.1f}"
        print(f"| {kind} | {was:.3f} | {gained} | {gate:.2f} | {ece:.3f} | {its_ece:.3f} | {rare} |")


if __name__ == "__main__":
    main()
