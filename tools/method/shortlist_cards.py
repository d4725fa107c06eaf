"""How wrong the figures of a card for all classes are where a camera has a shortlist, on tables of logits.

    python -m tools.method.shortlist_cards FOLDER [--card NAME] [--domains NAMES] [--seeds N] [--sizes N...] [--alike]

A card is made of one table (`--card`), with all of its classes. Each other table is served to cameras that show, and
have as shortlist, some of its classes, drawn anew for each seed; with `--alike`, one that is drawn and those that the
model takes for it most often, by its mean probability of them there. Printed are, by number of names:

- `ECE`: calibration error within the list, at the alpha of least `tsallis`: at temperature 1, at the card's, at one for
  as many names (below), and at one that is fitted to that camera's own images;
- `ATC`: the accuracy that the card's threshold expects there, less the accuracy, as a mean and as root mean square: as
  it is; with the card's threshold for as many names (`Card.thresholds_among`); and with one for the list itself,
  fitted to those images of the card's table that show its names;
- `card`: the accuracy of the card at that alpha less the accuracy, as a mean;
- `relative`: accuracy at the alpha that the objective `relative` chooses, with the card's reference entropies and with
  those of as many names, less that of `tsallis`, which needs no card;
- `alarm`: the share of cameras for which the entropy of standardised logits is least at an alpha that is .25 or more
  below that of the objective, among all classes and among the list. It compares with no figure of a card.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adawise.adapt.objective import Objective, entropy, relative, standardised_tsallis, tsallis
from adawise.card.calibration import calibration_error, fit_temperature, fit_threshold
from adawise.card.card import make_card, with_few
from adawise_lab.evaluate.tables import LogitTable, read_tables

SIZES = (5, 10, 25, 50)
_FAR = 0.25  # as in `adapt/alarm.py`
_LEAST = 8  # images of the card's table, without which a list has no threshold of its own
Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figures:
    """What a card holds by alpha: temperatures, reference entropies, thresholds and accuracies, `[G]`."""

    temperature: list[float]
    reference: list[float]
    threshold: list[float]
    accuracy: list[float]


def figures(logits: Sequence[Tensor], labels: Tensor) -> Figures:
    """Return the figures of a card of these images: logits `[N, C]` by alpha, labels `[N]`."""
    found = Figures([], [], [], [])
    for z in logits:
        T = fit_temperature(z, labels)
        values, right = entropy(z, T), float((z.argmax(-1) == labels).double().mean())
        found.temperature.append(T)
        found.reference.append(float(values.mean()))
        found.threshold.append(fit_threshold(values, right))
        found.accuracy.append(right)
    return found


def among_drawn(table: Tensor, labels: Tensor, size: int, rng: np.random.Generator) -> tuple[list[Tensor], Tensor]:
    """Return logits `[N, size]` by alpha of each image among its own name and others, drawn for it; and the labels, 0.

    Args:
        table: `[G, N, C]`.
        labels: `[N]`.
        size: the number of names.
        rng: draws the others.
    """
    G, N, C = table.shape
    keys = rng.random((N, C))
    keys[np.arange(N), labels.numpy()] = -1.0  # its own name comes first
    columns = torch.from_numpy(np.argsort(keys, axis=1)[:, :size])  # [N, size]
    return [*table.gather(2, columns.expand(G, N, size))], torch.zeros(N, dtype=torch.int64)


def chosen(objective: Objective, logits: Sequence[Tensor]) -> int:
    """Return the index of the alpha at which the mean of an objective is least."""
    return int(np.argmin([float(objective(z, j).mean()) for j, z in enumerate(logits)]))


def shown_by(table: LogitTable, size: int, seed: int, *, alike: bool) -> Indices:
    """Return the classes of a camera, ascending."""
    rng, there = np.random.default_rng([seed, size]), np.unique(table.labels)
    if not alike:
        return np.sort(rng.choice(there, size, replace=False))
    first = rng.choice(there)
    z = torch.from_numpy(table.logits[len(table.alphas) // 2, np.asarray(table.labels) == first].astype(np.float64))
    p = z.softmax(-1).mean(dim=0).numpy()[there]
    p[there == first] = 2.0
    return np.sort(there[np.argsort(-p)[:size]])


def camera(table: LogitTable, own: Indices, cards: tuple[Figures, Figures, Figures | None], few: Floats) -> Floats:
    """Return the figures of one camera with the shortlist `own`, in the order of `COLUMNS`."""
    every, sized, listed = cards
    rows = np.flatnonzero(np.isin(table.labels, own))
    whole = torch.from_numpy(table.logits[:, rows].astype(np.float64))
    labels = torch.from_numpy(np.searchsorted(own, np.asarray(table.labels)[rows]))
    z = [*whole[:, :, own]]
    j = chosen(tsallis, z)
    right = [float((each.argmax(-1) == labels).double().mean()) for each in z]
    temperatures = (1.0, every.temperature[j], sized.temperature[j], fit_temperature(z[j], labels))
    ece = [calibration_error((z[j] / T).softmax(-1), labels) for T in temperatures]
    values = entropy(z[j], every.temperature[j])
    below = [float((values <= threshold).mean()) - right[j] for threshold in (every.threshold[j], few[j])]
    of_list = np.nan
    if listed is not None:
        of_list = float((entropy(z[j], listed.temperature[j]) <= listed.threshold[j]).mean()) - right[j]
    by = [right[chosen(relative(card.temperature, card.reference), z)] - right[j] for card in (every, sized)]
    far = []
    for logits in (whole, z):
        plain, other = chosen(tsallis, [*logits]), chosen(lambda each, _: standardised_tsallis(each), [*logits])
        far.append(float(table.alphas[plain] - table.alphas[other] >= _FAR - 1e-9))
    return np.array([right[j], *ece, *below, of_list, every.accuracy[j] - right[j], *by, *far])


COLUMNS = (
    *("accuracy", "ECE, T = 1", "ECE, card", "ECE, as many names", "ECE, own T"),
    *("ATC, card", "ATC, as many names", "ATC, the list"),
    *("card", "relative, card", "relative, as many", "alarm, all", "alarm, list"),
)
_SQUARED = ("ATC, card", "ATC, as many names", "ATC, the list")  # their root mean square is printed too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--card", default="val_clean")
    parser.add_argument("--domains", help="comma-separated; default: all with the classes of the card's table")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--alike", action="store_true", help="cameras show classes that the model confuses")
    arguments = parser.parse_args()
    (home,) = read_tables(arguments.folder, [arguments.card])
    chosen_ones = read_tables(arguments.folder, arguments.domains.split(",") if arguments.domains else None)
    served = [table for table in chosen_ones if table.name != home.name and table.class_names == home.class_names]
    logits, labels = torch.from_numpy(home.logits.astype(np.float64)), torch.from_numpy(np.asarray(home.labels))
    every = figures([*logits], labels)
    card = make_card(logits.__getitem__, labels, alphas=tuple(home.alphas), identity={}, created_at="")
    card = with_few(card, logits.__getitem__, labels)
    print(f"card of {home.name}: {len(labels)} images, {len(home.class_names)} classes; {len(served)} tables")
    print("\t".join(("names", "cameras", *COLUMNS, *(f"{name} (rms)" for name in _SQUARED))))
    for size in arguments.sizes:
        few = np.array(card.thresholds_among(size, len(home.class_names)))
        sized = figures(*among_drawn(logits, labels, size, np.random.default_rng(size)))
        found = []
        for table in served:
            for seed in range(arguments.seeds):
                own = shown_by(table, size, seed, alike=arguments.alike)
                rows = np.flatnonzero(np.isin(np.asarray(home.labels), own))
                shown = torch.from_numpy(np.searchsorted(own, np.asarray(home.labels)[rows]))
                listed = figures([*logits[:, rows][:, :, own]], shown) if len(rows) >= _LEAST else None
                found.append(camera(table, own, (every, sized, listed), few))
        cells = np.array(found)
        squares = [np.sqrt(np.nanmean(cells[:, COLUMNS.index(name)] ** 2)) for name in _SQUARED]
        print("\t".join([str(size), str(len(cells)), *(f"{v:.3f}" for v in (*np.nanmean(cells, axis=0), *squares))]))


if __name__ == "__main__":
    main()
