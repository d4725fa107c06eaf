"""How far off accuracies are that are estimated without labels, and how often bands of measured ones hold the truth.

Each domain of the shared pair is what a camera may see, at each alpha: the estimate is the mean confidence, what
`drift` tells over time, as it is served without a card and at the temperatures that fit `val_clean`; beside it how
often the endpoints agree. Each pair of domains with the same classes is a camera that saw the one and then the other:
the change of confidence (Guillory et al. 2021) is what `drift` tells as the cost of an event. What is told was chosen
by the domains of validation; the errors that `drift` puts around it are of those for reporting, rounded up.

The bands are of simulated cameras (`tests/drift/labelling.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import torch

from adawise.card.calibration import fit_temperature
from adawise_drift.events.accuracy import AGREEMENT_ERROR, ESTIMATE_ERROR, NORMAL
from tests.drift.labelling import DESIGNS, covered
from tests.real.test_real_pair import DATA

_SEED, _DRAWS = 11, 400
_WAYS = {"confidence": ESTIMATE_ERROR, "agreement of the endpoints": AGREEMENT_ERROR}
_Table = tuple[np.ndarray, np.ndarray]  # logits [alphas, n, C], labels [n]


def main() -> int:
    """Print errors and coverage; 1 if an error is above what `drift` takes it for."""
    for name, design in DESIGNS.items():
        held, independent, width = covered(design, _SEED, _DRAWS)
        print(f"bands, {name}: {held:.1%} hold the truth, {width:.2f} wide; of independent images {independent:.1%}")
    tables = {path.stem: _read(path) for path in sorted((DATA / "logits").glob("*.npz"))}
    if not tables:
        print(f"no tables of logits in {DATA / 'logits'} (ADAWISE_REAL_DATA names another folder)")
        return 0
    fitted = [fit_temperature(torch.tensor(z), torch.tensor(tables["val_clean"][1])) for z in tables["val_clean"][0]]
    beyond = []
    for how, temperatures in (("without a card", np.ones(len(fitted))), ("with a card", np.array(fitted))):
        figures = {name: _figures(table, temperatures) for name, table in tables.items()}
        for whose, is_dev in (("validation", True), ("reporting", False)):
            found = {name: each for name, each in figures.items() if name.startswith("val_") == is_dev}
            for place, (way, error) in enumerate(_WAYS.items(), start=1):
                off = np.concatenate([each[:, place] - each[:, 0] for each in found.values()])
                _print(f"{how}, levels of {len(found)} domains for {whose}, by {way}", off, error)
                beyond += [_rms(off) > error + 0.005] * (not is_dev)
        beyond.append(_changes(how, {name: figures[name] for name in figures if tables[name][0].shape[2] == 100}))
    return int(any(beyond))


def _changes(how: str, figures: Mapping[str, np.ndarray]) -> bool:
    """Whether that by confidence is above what `drift` takes it for."""
    moves = np.concatenate([b - a for a, b in combinations(figures.values(), 2)])
    truth = moves[:, 0]
    for place, way in enumerate(_WAYS, start=1):
        _print(f"{how}, changes between {len(figures)} domains, by {way}", moves[:, place] - truth, ESTIMATE_ERROR)
    large = np.abs(truth) >= 0.1
    same = np.sign(moves[large, 1]) == np.sign(truth[large])
    print(f"{how}, accuracy itself changes by {_rms(truth):.3f}; of {same.size} changes of .1 or more confidence moves "
          f"the same way in {same.mean():.1%}")  # fmt: skip
    return _rms(moves[:, 1] - truth) > ESTIMATE_ERROR + 0.005


def _print(what: str, off: np.ndarray, error: float) -> None:
    held = np.mean(np.abs(off) <= NORMAL * error)
    print(f"{what}: off by {_rms(off):.3f} (root mean square), {off.mean():+.3f} on average, 95 % by less than "
          f"{np.quantile(np.abs(off), 0.95):.3f}; bands of {NORMAL * error:.2f} hold {held:.1%}")  # fmt: skip


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _read(path: object) -> _Table:
    with np.load(str(path)) as table:
        return table["logits"].astype(np.float32), table["labels"].astype(np.int64)


def _figures(table: _Table, temperatures: np.ndarray) -> np.ndarray:
    """`[alphas, 3]`: accuracy, mean confidence, agreement."""
    logits, labels = table
    p = np.exp((logits - logits.max(axis=2, keepdims=True)) / temperatures[:, None, None])
    p /= p.sum(axis=2, keepdims=True)
    answers = logits.argmax(axis=2)
    agreement = np.full(len(logits), np.mean(answers[0] == answers[-1]))
    return np.stack([(answers == labels).mean(axis=1), p.max(axis=2).mean(axis=1), agreement], axis=1)
