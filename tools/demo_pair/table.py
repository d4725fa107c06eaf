"""How good the demo's pair is: accuracy per condition and alpha, and what each objective would choose.

The objective is chosen on the validation cameras; the test cameras are measured once, with that choice. `calibrated_
entropy` needs a temperature per alpha: it is fitted on the validation frames of all conditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn.functional import normalize

from adawise.adapt.objective import entropy
from adawise.card.calibration import fit_temperature
from adawise.demo.weather import PRESETS, Weather
from tools.demo_pair.dataset import Frames, SplitWeather, render

ALPHAS = tuple(round(0.05 * i, 2) for i in range(21))
VALIDATION_SEED, TEST_SEED, CAMERAS = 5000, 9000, 20
VALIDATED, TESTED = 200, 300  # frames a condition
SHOWN = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Per condition the logits `[A, N, C]` at each alpha and the labels `[N]`."""

    logits: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]

    def accuracy(self, condition: str) -> Tensor:
        """`[A]`, in [0, 1]."""
        return (self.logits[condition].argmax(-1) == self.labels[condition]).double().mean(1)

    def entropy(self, condition: str, temperatures: list[float]) -> Tensor:
        """Mean entropy of softmax(logits / T) per alpha, `[A]`, nats."""
        per_alpha = zip(self.logits[condition], temperatures, strict=True)
        return torch.tensor([float(entropy(logits, T).mean()) for logits, T in per_alpha])


def measure(theta_0: CLIP, theta_1: CLIP, head: Tensor, frames: Mapping[str, Frames]) -> Split:
    """Interpolates the image towers on the grid (log space for the logit scale) and classifies every frame at each."""
    tower = deepcopy(theta_0.visual).eval()
    images = {condition: some.centred() for condition, some in frames.items()}
    logits: dict[str, list[Tensor]] = {condition: [] for condition in frames}
    for alpha in ALPHAS:
        with torch.inference_mode():
            ends = zip(tower.parameters(), theta_0.visual.parameters(), theta_1.visual.parameters(), strict=True)
            for weight, zero, one in ends:
                weight.copy_(torch.lerp(zero, one, alpha))
            scale = torch.lerp(theta_0.logit_scale, theta_1.logit_scale, alpha).exp()
            for condition, batch in images.items():
                features = torch.cat([normalize(tower(part), dim=-1) for part in torch.split(batch, 64)])
                logits[condition].append(scale * features @ head.T)
    stacked = {condition: torch.stack(per_alpha) for condition, per_alpha in logits.items()}
    return Split(stacked, {condition: some.labels for condition, some in frames.items()})


def temperatures(validation: Split) -> list[float]:
    """The temperature of each alpha that fits the validation labels of all conditions best, `[A]`."""
    labels = torch.cat(list(validation.labels.values()))
    pooled = torch.cat(list(validation.logits.values()), dim=1)  # [A, N, C]
    return [fit_temperature(logits, labels) for logits in pooled]


def choices(validation: Split) -> dict[str, dict[str, int]]:
    """What each way to choose alpha chooses by the validation split alone: name -> condition -> alpha index."""
    fitted = temperatures(validation)
    flat = [1.0] * len(ALPHAS)
    conditions = list(validation.logits)
    mean = torch.stack([validation.accuracy(c) for c in conditions]).mean(0)
    return {
        "zero-shot": dict.fromkeys(conditions, 0),
        "fine-tuned": dict.fromkeys(conditions, len(ALPHAS) - 1),
        "fixed .5": dict.fromkeys(conditions, len(ALPHAS) // 2),
        "best fixed": dict.fromkeys(conditions, int(mean.argmax())),
        "`entropy`": {c: int(validation.entropy(c, flat).argmin()) for c in conditions},
        "`calibrated_entropy`": {c: int(validation.entropy(c, fitted).argmin()) for c in conditions},
        "oracle": {c: int(validation.accuracy(c).argmax()) for c in conditions},
    }


def markdown(split: Split, chosen: Mapping[str, Mapping[str, int]]) -> str:
    """Two tables: accuracy by condition and alpha; accuracy by condition and way to choose, with the chosen alpha."""
    conditions = list(split.logits)
    accuracy = {c: split.accuracy(c) for c in conditions}
    columns = [ALPHAS.index(alpha) for alpha in SHOWN]
    head = [f"{alpha:.2f}" for alpha in SHOWN]
    rows = [["condition", *head, "best alpha", "at it"]]
    for c in conditions:
        best = int(accuracy[c].argmax())
        rows.append([c, *(f"{accuracy[c][i]:.3f}" for i in columns), f"{ALPHAS[best]:.2f}", f"{accuracy[c][best]:.3f}"])
    mean = torch.stack(list(accuracy.values())).mean(0)
    rows.append(
        ["mean", *(f"{mean[i]:.3f}" for i in columns), f"{ALPHAS[int(mean.argmax())]:.2f}", f"{mean.max():.3f}"]
    )
    rows_served = [["condition", *chosen]]
    for c in conditions:
        picked = [indices[c] for indices in chosen.values()]
        rows_served.append([c, *(f"{accuracy[c][i]:.3f} ({ALPHAS[i]:.2f})" for i in picked)])
    rows_served.append(["mean", *(f"{served(split, indices):.3f}" for indices in chosen.values())])
    return f"{_table(rows)}\n\n{_table(rows_served)}"


def served(split: Split, indices: Mapping[str, int]) -> float:
    """The mean over the conditions of the accuracy at the alpha (index) chosen for each, in [0, 1]."""
    return float(np.mean([float(split.accuracy(condition)[index]) for condition, index in indices.items()]))


def measure_and_describe(theta_0: CLIP, theta_1: CLIP, head: Tensor, size: int) -> str:
    """Renders both splits, measures the pair on them, and writes its README."""
    validation = measure(theta_0, theta_1, head, rendered(VALIDATION_SEED, VALIDATED, size))
    chosen = choices(validation)
    by_entropy, by_calibrated = (served(validation, chosen[f"`{name}`"]) for name in ("entropy", "calibrated_entropy"))
    test = measure(theta_0, theta_1, head, rendered(TEST_SEED, TESTED, size))
    return _README.format(
        validation=markdown(validation, chosen),
        test=markdown(test, chosen),
        by_entropy=by_entropy,
        by_calibrated=by_calibrated,
        validated=VALIDATED,
        tested=TESTED,
        temperatures=", ".join(f"{T:.2f}" for T in temperatures(validation)[::5]),
    )


def rendered(first_seed: int, count: int, size: int, conditions: Iterable[str] = PRESETS) -> dict[str, Frames]:
    """`count` frames of each of these conditions at full severity, from the `CAMERAS` cameras that start at a seed."""

    def always(weather: Weather) -> SplitWeather:
        return lambda _: weather

    return {name: render(count, CAMERAS, first_seed, always(PRESETS[name]), size) for name in conditions}


def _table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


_README = """\
# The demo's pair

Two open_clip models of 0.9 M parameters in the image tower, made by `python -m tools.demo_pair.train` from pictures
that `adawise.demo.scene` draws: `theta_0` saw all conditions, `theta_1` was then fine-tuned on clear days, seen by good
and bad cameras (noise, compression, smear, dust), and taught to be unsure of faded pictures. Without the last,
`entropy` took alpha 1 in fog and served less than zero-shot. The text tower and the logit scale are the same in both.
This file is written by that command.

Served on the validation cameras: `entropy` {by_entropy:.3f}, `calibrated_entropy` {by_calibrated:.3f}. A difference
below .01 is a draw. The demo runs with the worker's default objective, which draws with both
(`tools/method/signals.py`).

Conditions are at full severity (`weather.PRESETS`). Training, validation and test use different cameras.

## Test cameras ({tested} frames a condition)

What was chosen (in brackets) was chosen on the validation cameras, the test frames only measure it. "best fixed" and
"oracle" know the labels of the validation frames; "best alpha" in a split's first table is in hindsight of that split.
A difference below about .03 in one condition is within the error of the sample.

{test}

## Validation cameras ({validated} frames a condition)

{validation}

Temperatures of `calibrated_entropy` at alpha 0, .25, .5, .75, 1: {temperatures}.
"""
