"""The text and tables that show what late labels say about a card."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from adawise.console import paper
from adawise.labels.benefit.bootstrap import Kinds, intervals
from adawise.labels.benefit.helped import Interval
from adawise.labels.compare.result import RunDifference
from adawise_lab.card.bias import EVIDENCE, Choice, CommonBias
from adawise_lab.card.show import bias_text

_ROWS = 12  # conditions that are shown


def show_correction(
    objective: str, alphas: Sequence[float], bias: CommonBias, choices: Sequence[Choice], source: str
) -> None:
    """Print the estimated bias, and its effect on each condition when the others' labels estimate it."""
    images = sum(choice.images for choice in choices)
    print(f"{images} labelled images under {len(choices)} conditions; labels from {source}.")
    paper().print(Group(_choices(choices), Text(_evidence(objective, alphas, bias)), Text(_cross_fitted(choices))))


def _choices(choices: Sequence[Choice]) -> Table:
    table = Table(title="each condition by the labels of the others", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("condition", overflow="fold")
    for name in ("labels", "alpha as it is", "right", "alpha corrected", "right"):
        table.add_column(name, justify="right")
    shown = sorted(choices, key=lambda choice: (-abs(choice.right[1] - choice.right[0]), choice.condition))
    for choice in shown[:_ROWS]:
        at = [
            (f"{alpha:.2f}", f"{right / choice.images:.3f}")
            for alpha, right in zip(choice.alphas, choice.right, strict=True)
        ]
        table.add_row(choice.condition, str(choice.images), *at[0], *at[1])
    if len(shown) > _ROWS:
        table.caption = f"and {len(shown) - _ROWS} more"
    return table


def _evidence(objective: str, alphas: Sequence[float], bias: CommonBias) -> str:
    if not bias.is_clear:
        return (
            f"It is not shown that {objective} is wrong in the same way under all of them (evidence "
            f"{bias.evidence:.1f} nats; a correction needs more than {EVIDENCE:g})."
        )
    return (
        f"They show that {objective} is biased: evidence {bias.evidence:.1f} nats for a bias that all conditions "
        "have in common. The correction to add, in nats: "
        f"{bias_text(bias.nats.tolist(), bias.sd.tolist(), alphas)}."
    )


def _cross_fitted(choices: Sequence[Choice]) -> str:
    images, before, after = (
        np.array(each, np.int64) for each in zip(*((choice.images, *choice.right) for choice in choices), strict=True)
    )
    # `intervals` returns the second accuracy, and the first less the second. The gain is the reverse, so the signs
    # change.
    corrected, less = intervals(Kinds(images, before, after, np.ones_like(images)), seed=0)
    gain = Interval(-less.value, -less.high, -less.low)
    return (
        f"At the alpha that it chooses for a condition, {before.sum() / images.sum():.3f} of the images are right "
        f"without the correction, {corrected.value:.3f} with the correction fitted to the other conditions' "
        f"labels: {_points(gain)}."
    )


def show_replays(difference: RunDifference, mean_alphas: tuple[float, float]) -> None:
    """Print what the corrected card would have changed, from replays of a recording with the old and the new card."""
    totals, labels = difference.totals, difference.by_labels.whole
    before, after = mean_alphas
    share = totals.batches_apart / max(totals.batches, 1)
    spent = totals.forward_equivalents
    lines = [
        f"Changes by two replays of the recording: another alpha in {totals.batches_apart} of {totals.batches} "
        f"batches ({share:.0%}), another label for {totals.relabelled} of {totals.images} images; mean alpha "
        f"{before:.3f} before, {after:.3f} after"
        + ("." if None in spent else f"; forwards per image {spent[0]:.2f} and {spent[1]:.2f}.")
    ]
    if labels is not None:
        one, other = labels.accuracy
        lines.append(
            f"Of the {labels.images} labelled images {one.value:.3f} were right before, {other.value:.3f} after: "
            f"{_points(labels.difference)}. The bias was fitted to these labels: rely on the result above, where "
            "each condition is judged by the labels of the others."
        )
    paper().print(Group(*map(Text, lines)))


def _points(gain: Interval) -> str:
    # + 0.0 turns -0.0 into 0.0.
    value, low, high = (f"{round(100 * each, 1) + 0.0:+.1f}" for each in (gain.value, gain.low, gain.high))
    return f"{value} points" + (f" (95 %: {low} to {high})" if gain.is_known else "")
