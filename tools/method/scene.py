"""What a camera's scene is worth: points of accuracy of `scene_label` over the served label, on tables of logits.

    python -m tools.method.scene FOLDER [--domains NAMES] [--seeds N] [--batch N] [--temperature T] [--frames N]

`adawise evaluate --scene.prior beside --shows few5` measures it beside strategies, in batches of 32. Here all images of
a domain are served at the alpha whose mean entropy over the domain is least, in batches of 16 or of `--batch`, and
`--temperature` divides the logits first, so that below 1 the model is surer than it is here. Cameras show what they
show in `evaluate` (`adawise_lab.evaluate.camera`), 640 images each. In `control` it is every class that the domain has,
equally often, and runs are of so many images of one class. In `alternating` two classes take turns; in `conditions` the
images are those of `control`, from this domain and from one of the same classes, in turns of 32 images.

With `--frames`, so many rows of a table, one after the other, are frames of one photograph (`tools.method.frames`), and
cameras show these photographs in any order: of all classes, or of five.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adawise.adapt.prior import Array, ClassPrior
from adawise.adapt.smoothing import Smoothing
from adawise_lab.evaluate.camera import rare_images, shown
from adawise_lab.evaluate.streams import RUN, Domain, Ids
from adawise_lab.evaluate.tables import LogitTable, read_tables

STREAMS = {  # name -> what a camera shows, the order, and the fewest and most images of a run
    "control": ("few100000", "iid", RUN),
    **{shows: (shows, "iid", RUN) for shows in ("few1", "few5", "few10", "few25", "zipf", "changing", "rare")},
    **{f"few5, runs of {n} to {m}": ("few5", "runs", (n, m)) for n, m in ((2, 4), (4, 12), (40, 40), (64, 200))},
}
ALTERNATING, CONDITIONS = "alternating", "conditions"
IMAGES = 640
_TURN = 32  # images of one condition
_BINS = 15
LABELS = ("served", "prior", "both")


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


class ServedCamera:
    """Tables of logits that one camera is served with.

    Args:
        tables: the first is that of the domain, others have the same classes.
        temperature: divides the logits.
    """

    def __init__(self, tables: Sequence[LogitTable], temperature: float) -> None:
        self.p = np.concatenate([probabilities(table, temperature) for table in tables])
        self.labels = np.concatenate([np.asarray(table.labels) for table in tables])
        starts = np.cumsum([0, *map(len, tables)])
        self.domains = [
            Domain(table.name, np.arange(len(table)) + first, np.asarray(table.labels))
            for table, first in zip(tables, starts, strict=False)
        ]

    def judged(self, rows: Ids, rare: Ids, batch: int) -> Array:
        """Return the figures of the images in `rows`, in their order.

        For each of `LABELS` accuracy, calibration error, negative log likelihood, changes of the label while the truth
        is the same, and recall of the `rare` images: `[3, 5]`, then the mean gate and weight of smoothing, `[2]`.
        """
        prior, smoothing = ClassPrior(""), Smoothing("")
        corrected, smoothed, gates = [], [], []
        for first in range(0, len(rows), batch):
            p = self.p[rows[first : first + batch]]
            prior = prior.observed(p)
            corrected.append(prior.corrected(p))
            smoothing, q, weight = smoothing.smoothed(p, corrected[-1], prior)
            smoothed.append(q)
            gates.append((prior.gate(p.shape[1]), weight))
        truth, of_rare, numbers = self.labels[rows], np.isin(rows, rare), []
        lasts = truth[1:] == truth[:-1]
        for q in (self.p[rows], np.concatenate(corrected), np.concatenate(smoothed)):
            label = q.argmax(axis=1)
            right = label == truth
            numbers += [
                right.mean(),
                calibration_error(q, right),
                -np.log(np.maximum(q[np.arange(len(q)), truth], 1e-12)).mean(),
                (label[1:] != label[:-1])[lasts].mean() if lasts.any() else np.nan,
                right[of_rare].mean() if of_rare.any() else np.nan,
            ]
        return np.array([*numbers, *np.mean(gates, axis=0)])

    def stream(self, stream: str, seed: int) -> tuple[Ids, Ids]:
        """Return the rows of one of `STREAMS`, `alternating` or `conditions`, in order, and the rare ones."""
        rng = np.random.default_rng((seed, *stream.encode()))
        if stream == ALTERNATING:
            classes = rng.choice(np.unique(self.domains[0].labels), 2, replace=False)
            of_class = [self.domains[0].ids[self.domains[0].labels == c] for c in classes]
            return np.array([rng.choice(of_class[n % 2]) for n in range(IMAGES)]), np.empty(0, np.int64)
        if stream == CONDITIONS:
            turns = range(IMAGES // _TURN)
            drawn = [rng.choice(self.domains[turn % len(self.domains)].ids, _TURN) for turn in turns]
            return np.concatenate(drawn), np.empty(0, np.int64)
        shows, order, run = STREAMS[stream]
        (batches,) = shown(
            [(np.zeros(IMAGES, np.int64),)], shows, "stationary", order, self.domains, seed=seed, run=run
        )
        return np.concatenate(batches), rare_images(shows, self.domains[:1], seed=seed)

    def frames(self, shows: str, count: int, seed: int) -> tuple[Ids, Ids]:
        """Return rows of photographs of `count` frames each, of `all` classes or of `few5`; the first one is cut."""
        rng, labels = np.random.default_rng((seed, count)), self.labels[::count]
        classes = np.unique(labels)
        some = classes if shows == "all" else rng.choice(classes, min(5, len(classes)), replace=False)
        photographs = rng.choice(np.flatnonzero(np.isin(labels, some)), IMAGES // count + 1)
        rows = (photographs[:, None] * count + np.arange(count)).ravel()
        return rows[count // 2 : count // 2 + IMAGES], np.empty(0, np.int64)


def figures(camera: ServedCamera, draw: Callable[[int], tuple[Ids, Ids]], batch: int, seeds: int) -> Array:
    """Return the mean figures over cameras of different seeds. See `ServedCamera.judged`."""
    found = [camera.judged(*draw(seed), batch) for seed in range(seeds)]
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
    parser.add_argument("--frames", type=int, help="rows that are frames of one photograph")
    args = parser.parse_args()
    tables = read_tables(args.folder, None if args.domains is None else args.domains.split(","))
    print(f"{len(tables)} domains, {args.seeds} cameras each, {IMAGES} images in batches of {args.batch}")
    print(
        "| stream | served | prior | worst domain | both | worst domain | over prior, worst | gate | smoothing "
        "| ECE: served | prior | both | NLL: served | prior | both | changes: served | both | recall: prior | worst "
        "| both | worst |"
    )
    print(f"|{'---|' * 21}")
    if args.frames:
        cameras = [ServedCamera([table], args.temperature) for table in tables]
        for shows in ("all", "few5"):
            _print(shows, [figures(c, partial(c.frames, shows, args.frames), args.batch, args.seeds) for c in cameras])
        return
    for stream in (*STREAMS, ALTERNATING, CONDITIONS):
        found = []
        for number, table in enumerate(tables):
            pair = [table]
            if stream == CONDITIONS:
                turned = [*tables[number + 1 :], *tables[:number]]
                pair += [other for other in turned if other.class_names == table.class_names][:1]
            camera = ServedCamera(pair, args.temperature)
            if stream == CONDITIONS and len(pair) == 1:
                continue  # no domain has the same classes
            found.append(figures(camera, partial(camera.stream, stream), args.batch, args.seeds))
        if found:
            _print(stream, found)


def _print(stream: str, found: Sequence[Array]) -> None:
    every = np.array(found)
    domains, gates = every[:, :-2].reshape(len(found), len(LABELS), 5), every[:, -2:].mean(axis=0)
    accuracy, ece, nll, changes, recall = np.moveaxis(domains, 2, 0)
    cells = [stream, f"{accuracy[:, 0].mean():.3f}"]
    for label in (1, 2):
        gains = 100 * (accuracy[:, label] - accuracy[:, 0])
        cells += [f"{gains.mean():+.1f}", f"{gains.min():+.1f}"]
    cells += [f"{100 * (accuracy[:, 2] - accuracy[:, 1]).min():+.1f}", *(f"{gate:.2f}" for gate in gates)]
    cells += [f"{value:.3f}" for value in ece.mean(axis=0)] + [f"{value:.2f}" for value in nll.mean(axis=0)]
    cells += ["" if np.isnan(value) else f"{value:.2f}" for value in changes.mean(axis=0)[[0, 2]]]
    for label in (1, 2):
        recalls = 100 * (recall[:, label] - recall[:, 0])
        cells += ["", ""] if np.isnan(recalls).any() else [f"{recalls.mean():+.1f}", f"{recalls.min():+.1f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
