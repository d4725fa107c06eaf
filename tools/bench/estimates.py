"""How far off a change of accuracy is that is estimated without labels, on the shared pair's domains.

Each pair of domains with the same classes is a camera that saw the one and then the other, at each alpha that serves
both. The estimate is the change of mean confidence (Guillory et al. 2021), what `drift` tells as the cost of an event;
beside it the change of the share on which the endpoints agree, and that nothing changes. Domains for reporting alone
are among them: nothing is chosen here, the error is what `drift` puts around its estimate.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np

from adawise.drift.events.judge import ESTIMATE_ERROR
from tests.real.test_real_pair import DATA

_CLASSES = 100


def main() -> int:
    """Print the errors; 1 if that of confidence is above what `drift` takes it for."""
    domains = {path.stem: figures for path in sorted((DATA / "logits").glob("*.npz")) if len(figures := _of(path))}
    if len(domains) < 2:
        print(f"no tables of logits in {DATA / 'logits'} (ADAWISE_REAL_DATA names another folder)")
        return 0
    pairs = list(combinations(domains.values(), 2))
    print(f"{len(domains)} domains of {_CLASSES} classes, {len(pairs)} changes at each of {len(pairs[0][0])} alphas")
    worst = 0.0
    for place, name in enumerate(("confidence", "agreement of the endpoints"), 1):
        errors = np.concatenate([(b[:, place] - a[:, place]) - (b[:, 0] - a[:, 0]) for a, b in pairs])
        rms, q95 = float(np.sqrt(np.mean(errors**2))), _q95(errors)
        worst = worst or rms
        print(f"by {name}: off by {rms:.3f} (root mean square), 95 % by less than {q95:.3f}")
    changes = np.concatenate([b[:, 0] - a[:, 0] for a, b in pairs])
    print(f"accuracy itself changes by {np.sqrt(np.mean(changes**2)):.3f}, 95 % by less than {_q95(changes):.3f}")
    large = np.abs(changes) >= 0.1
    signs = np.concatenate([np.sign(b[:, 1] - a[:, 1]) == np.sign(b[:, 0] - a[:, 0]) for a, b in pairs])
    print(f"of changes of .1 or more confidence moves the same way in {signs[large].mean():.1%}")
    return int(worst > ESTIMATE_ERROR + 0.005)


def _q95(errors: np.ndarray) -> float:
    return float(np.quantile(np.abs(errors), 0.95))


def _of(path: Path) -> np.ndarray:
    """`[alphas, 3]`: accuracy, mean confidence, agreement; nothing of other classes."""
    with np.load(path) as table:
        logits, labels = table["logits"].astype(np.float32), table["labels"]
    if logits.shape[2] != _CLASSES:
        return np.empty((0, 3))
    p = np.exp(logits - logits.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    answers = logits.argmax(axis=2)
    agreement = np.full(len(logits), np.mean(answers[0] == answers[-1]))
    return np.stack([(answers == labels).mean(axis=1), p.max(axis=2).mean(axis=1), agreement], axis=1)
