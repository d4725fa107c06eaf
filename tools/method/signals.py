"""What else could be minimised without labels: candidates for an objective, judged on development data alone.

    python -m tools.method.signals FOLDER [--second SECOND]

For each regime of `tools.method.choose`: the accuracy at the alpha that a signal chooses on all images of a domain, and
on batches of 32 of them, mean over the domains. Several ask for forwards at other alphas on every image (`..._mean`
compares with the mean output over five alphas): they are here to see what such a signal could be worth at best.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adawise_lab.evaluate.tables import LogitTable
from tools.method.choose import card_of, regimes

Signal = Callable[[Tensor], Tensor]  # log probabilities [G, n, C] -> [G, n], lower is better
BATCH, BATCHES = 32, 100
MIXED = slice(None, None, 5)  # of the grid: 0, .25, .5, .75, 1


def shannon(log_p: Tensor) -> Tensor:
    """Nats."""
    return -(log_p.exp() * log_p).sum(-1)


def tsallis(order: float) -> Signal:
    """Of that order; 1 would be Shannon's."""
    return lambda log_p: (1.0 - (order * log_p).exp().sum(-1)) / (order - 1.0)


def renyi(order: float) -> Signal:
    """Of that order; infinity would be the likeliest class's surprise."""
    return lambda log_p: torch.logsumexp(order * log_p, -1) / (1.0 - order)


def among_the_first(classes: int) -> Signal:
    """Shannon's entropy among the likeliest classes."""
    return lambda log_p: shannon(log_p.topk(min(classes, log_p.shape[-1]), -1).values.log_softmax(-1))


def margin(log_p: Tensor) -> Tensor:
    """By how much the likeliest class leads, in probability."""
    first = log_p.exp().topk(2, -1).values
    return first[..., 1] - first[..., 0]


def logit_margin(log_p: Tensor) -> Tensor:
    """The same in logits."""
    first = log_p.topk(2, -1).values
    return first[..., 1] - first[..., 0]


def surprise_of_the_mean(log_p: Tensor) -> Tensor:
    """Cross-entropy to the mean output over five alphas."""
    return -(log_p[MIXED].exp().mean(0) * log_p).sum(-1)


def contradicts_the_mean(log_p: Tensor) -> Tensor:
    """1 where the class is another than that of the mean output."""
    return (log_p.argmax(-1) != log_p[MIXED].exp().mean(0).argmax(-1)).float()


def contradicts_the_ends(log_p: Tensor) -> Tensor:
    """How many of the two models say another class."""
    found = log_p.argmax(-1)
    return (found != found[0]).float() + (found != found[-1]).float()


def of_the_neighbours_mean(log_p: Tensor) -> Tensor:
    """Shannon's entropy of the mean output over alphas up to .15 away."""
    G = len(log_p)
    means = [log_p[max(0, j - 3) : min(G, j + 4)].exp().mean(0) for j in range(G)]
    return shannon(torch.stack(means).clamp_min(1e-30).log())


SIGNALS: Mapping[str, Signal] = {
    "entropy": shannon,
    **{f"tsallis_{order}": tsallis(order) for order in (2, 3, 4, 6)},
    **{f"renyi_{order}": renyi(order) for order in (2, 4)},
    **{f"entropy_of_first_{classes}": among_the_first(classes) for classes in (2, 5, 10)},
    "margin": margin,
    "logit_margin": logit_margin,
    "surprise_of_mean": surprise_of_the_mean,
    "contradicts_mean": contradicts_the_mean,
    "entropy_votes_with_mean": lambda log_p: shannon(log_p) + surprise_of_the_mean(log_p),
    "entropy_votes_with_ends": lambda log_p: shannon(log_p) + 0.5 * contradicts_the_ends(log_p),
    "entropy_of_neighbours_mean": of_the_neighbours_mean,
}
MUTUAL = "mutual_information"  # mean entropy less half the entropy of the batch's mean output


def evaluated(table: LogitTable, temperatures: Sequence[float]) -> Iterator[tuple[str, float, float]]:
    """(signal, accuracy by its choice on all images, mean accuracy by its choices on batches) of one domain."""
    z = torch.from_numpy(table.logits.astype(np.float32))
    right = (z.argmax(-1) == torch.from_numpy(table.labels)).double().numpy()
    raw = z.log_softmax(-1)
    calibrated = (z / torch.tensor(temperatures)[:, None, None]).log_softmax(-1)
    values = {name: signal(raw).double().numpy() for name, signal in SIGNALS.items()}
    values["calibrated_entropy"] = shannon(calibrated).double().numpy()
    values["calibrated_tsallis_4"] = tsallis(4)(calibrated).double().numpy()
    everything = np.arange(len(table))
    rng = np.random.default_rng(0)
    batches = [rng.choice(everything, min(BATCH, len(everything)), replace=False) for _ in range(BATCHES)]
    for name, value in values.items():
        yield name, *_chosen(right, partial(_mean, value), everything, batches)
    yield MUTUAL, *_chosen(right, lambda rows: _mutual(raw[:, rows]), everything, batches)


def _mean(values: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = values[:, rows].mean(1)
    return found


def _mutual(log_p: Tensor) -> npt.NDArray[np.float64]:
    mean = log_p.exp().mean(1).clamp_min(1e-30).log()
    found: npt.NDArray[np.float64] = (shannon(log_p).mean(1) - 0.5 * shannon(mean)).double().numpy()
    return found


def _chosen(
    right: npt.NDArray[np.float64],
    objective: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]],
    everything: npt.NDArray[np.int64],
    batches: Sequence[npt.NDArray[np.int64]],
) -> tuple[float, float]:
    whole = float(right[int(objective(everything).argmin())].mean())
    return whole, float(np.mean([right[int(objective(rows).argmin()), rows].mean() for rows in batches]))


def main() -> None:
    """Print one table: a row for each signal, a column for each regime."""
    parser = argparse.ArgumentParser(prog="python -m tools.method.signals", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="what tools.method.development wrote")
    parser.add_argument("--second", type=Path, help="the folder of the second pair")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, npt.NDArray[np.float64]]] = {}
    made = regimes(arguments.folder, arguments.second)
    for regime, tables_of in made.items():
        tables = tables_of()
        temperatures = card_of(tables).temperature
        rows: dict[str, list[tuple[float, float]]] = {}
        for table in tables:
            for name, whole, batches in evaluated(table, temperatures):
                rows.setdefault(name, []).append((whole, batches))
        for name, pairs in rows.items():
            found.setdefault(name, {})[regime] = np.mean(pairs, axis=0)
    print("| signal | " + " | ".join(made) + " |")
    print("|---|" + "---|" * len(made))
    for name, by_regime in found.items():
        print(f"| {name} | " + " | ".join(f"{a:.4f}; {b:.4f}" for a, b in by_regime.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
