"""A card as tables and sentences, and what late labels say of one."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from adawise.adapt.objective import NAMES
from adawise.card.advice import OWN, advise, recommend, scene_in_words
from adawise.card.card import Card, LabelBias, ObjectiveResult, PairVerdict, SceneProof
from adawise.console import paper
from adawise.labels.benefit.bootstrap import Kinds, intervals
from adawise.labels.benefit.helped import Interval
from adawise.text import shared_layers, three
from adawise_lab.card.bias import EVIDENCE, Choice, CommonBias

if TYPE_CHECKING:  # imports all that a replay needs
    from pathlib import Path

    from adawise_lab.card.late_labels import Correction, Replays
    from adawise_lab.card.make import MadeCard
    from adawise_lab.card.scene_proof import SceneComparison

GROUPS = {"home": "home", "shifted": "home, shifted", "new": "classes left out", OWN: "home"}
_COLUMNS = ("alpha", "accuracy", "T", "NLL", "ECE", "ECE at T=1", "entropy", "threshold")
_PARTS = 4  # equal parts of the grid; a bias is shown at their ends
_ROWS = 12  # conditions that are shown
_SHORT = {"calibrated_entropy": "calibr.\nentropy", "calibrated_tsallis": "calibr.\ntsallis"}


def print_card(card: Card, name: str) -> None:
    """Print the card, in colour on a terminal and plain elsewhere."""
    parts: list[Table | Text] = [_per_alpha(card, name), Text(_path(card))]
    if card.tail_share < 1.0:
        parts.append(Text(f"The two models have {shared_layers(card.tail_share)}."))
    if card.judged:
        parts.append(_objectives(card))
    parts.append(Text(_advice(card)))
    if card.verdict is not None:
        parts += [verdict_table(card.verdict), Text(verdict_text(card.verdict))]
    if card.search is not None:
        parts.append(Text(_search(card)))
    if card.bias is not None:
        parts.append(Text(_bias(card.bias, card.alphas)))
    if card.scene is not None:
        parts.append(Text(_scene(card.scene)))
    paper().print(Group(*parts))


def print_made(made: MadeCard, name: str) -> None:
    """Print a new card, and a line on what the pair's own card advises."""
    print_card(made.card, name)
    if made.fixed_alpha is not None:
        print(
            f"The pair's own card advises a fixed alpha of {made.fixed_alpha:g}. This one advises nothing, so auto "
            f'adapts. For a fixed alpha, set search.strategy = "fixed" and search.alpha = {made.fixed_alpha:g}.'
        )


def _per_alpha(card: Card, name: str) -> Table:
    table = _plain(*_COLUMNS, title=name)
    best = card.accuracy.index(max(card.accuracy))
    for j, alpha in enumerate(card.alphas):
        values = (card.temperature, card.nll, card.ece, card.ece_raw, card.reference_entropy, card.threshold)
        mark = " best" if j == best else ""
        cells = [f"{alpha:.2f}{mark}", f"{card.accuracy[j]:.3f}", *(f"{value[j]:.3f}" for value in values)]
        table.add_row(*cells, style="bold green" if j == best else "")
    return table


def _plain(*columns: str, title: str) -> Table:
    """Return an empty table that fits 80 columns."""
    return Table(*columns, title=title, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)


def _path(card: Card) -> str:
    lowest, worse_end = min(card.accuracy), min(card.accuracy[0], card.accuracy[-1])
    at = card.alphas[card.accuracy.index(lowest)]
    verdict = (
        f"There is an accuracy BARRIER between the models: accuracy is {lowest:.3f} at {at:.2f}, below both ends "
        f"({worse_end:.3f}). Do not interpolate this pair; fine-tune from theta_0 with a lower rate."
        if card.has_barrier
        else "No accuracy barrier: no alpha is worse than the worse end."
    )
    return (
        f"{card.images} images; best alpha on them {card.best_alpha:.2f}. {verdict} These images are "
        "in-distribution: the best alpha under shift depends on the stream."
    )


def _objectives(card: Card) -> Table:
    names = [_SHORT.get(name, name) for name in NAMES]
    title = "Accuracy at the alpha (behind it) that each objective chooses"
    table = _plain("condition", *names, "best", title=title)
    table.columns[0].overflow = "fold"
    for condition in dict.fromkeys(result.condition for result in card.judged):
        rows = {result.objective: result for result in card.judged if result.condition == condition}
        first = next(iter(rows.values()))
        cells = [_choice(rows[name]) if name in rows else "" for name in NAMES]
        table.add_row(condition, *cells, three(first.best_accuracy))
    return table


def _choice(result: ObjectiveResult) -> str:
    return f"{three(result.accuracy)} {result.alpha:.2f}".replace(" 0.", " .")


def _advice(card: Card) -> str:
    found = advise(card)
    advice = f"Recommended, and used by search.objective = auto: {found.objective}, because {found.reason}."
    if not card.shifted_temperature and all(result.condition == OWN for result in card.judged):
        advice += (
            " Images like those of the fine-tuning have no shift, which the choice needs: give --labelled-shifted "
            "FOLDER, with labelled images such as your cameras may see later, and of classes that the fine-tuning "
            "lacked."
        )
    return advice


def verdict_table(verdict: PairVerdict) -> Table:
    """Return accuracies by group of conditions; ± is a 95 % interval for the group's number of images."""
    fixed = f"fixed\n{verdict.fixed_alpha:g}"
    headers = ("labelled\nimages", "condi-\ntions", "images", "zero-\nshot", "fine-\ntuned", fixed, "adapted")
    table = _plain(*headers, title="Verdict")
    for one in verdict.groups:
        half = _half_width(one.adapted, one.images)
        *fixed_ones, adapted = map(three, (one.zero_shot, one.fine_tuned, one.best_fixed, one.adapted))
        cells = [f"{one.conditions}", f"{one.images}", *fixed_ones, f"{adapted} ±{three(half)}"]
        table.add_row(GROUPS.get(one.group, one.group), *cells)
    means = (verdict.zero_shot, verdict.fine_tuned, verdict.best_fixed, verdict.adapted)
    table.add_row("mean", "", "", *map(three, means), style="bold")
    return table


def _half_width(share: float, images: int) -> float:
    """Return half the width of a 95 % interval of a share, by Agresti and Coull (1998).

    Theirs is not 0 where all of a few images are right.
    """
    near = (share * images + 2.0) / (images + 4.0)
    return 1.96 * math.sqrt(near * (1.0 - near) / (images + 4.0))


def verdict_text(verdict: PairVerdict) -> str:
    """Return sentences with the gain of adapting over the best fixed alpha, and the recommendation."""
    found = (
        f"Adapting by {verdict.objective} serves {_points(verdict.gain)} "
        f"against the best fixed alpha in hindsight, {verdict.fixed_alpha:g}"
    )
    if verdict.gain[1] < 0.0 <= verdict.gain[2]:
        found += ", which is a draw"
    recommended = recommend(verdict)
    if recommended.alpha is None:
        mixed = _of_mixed(verdict.mixed_gain, verdict.fixed_alpha)
        return " ".join([f"{found}. Recommended: adapt, as search.strategy = auto does.", *mixed])
    what = "theta_0 alone" if recommended.alpha == 0.0 else f"alpha {recommended.alpha:g} for all images"
    if recommended.is_auto:
        return f"{found}. Recommended: {what}, as search.strategy = auto does."
    return (
        f'{found}. Recommended: {what}, by search.strategy = "fixed" and search.alpha = {recommended.alpha:g}: it '
        f"serves {three(recommended.served)}, and adapted the pair serves {three(verdict.adapted)}."
    )


def _of_mixed(gain: Sequence[float] | None, fixed_alpha: float) -> list[str]:
    """Return a sentence for cameras whose batches mix all conditions.

    Returns:
        No sentence unless the 95 % interval says that adapting serves them worse than a fixed alpha.
    """
    if gain is None or gain[2] >= 0.0:
        return []
    return [
        f"Where every batch of a camera mixes all of these, it serves {_points(gain)}: for such cameras set "
        f'search.strategy = "fixed" and search.alpha = {fixed_alpha:g}.'
    ]


def _points(gain: Sequence[float]) -> str:
    difference, low, high = (f"{100 * value:+.1f}" for value in gain)
    return f"{difference} points (95 %: {low} to {high})"


def _search(card: Card) -> str:
    fitted = card.search
    assert fitted is not None
    return (
        f"Search, fitted to `{fitted.objective}` on {fitted.batches} recorded batches: lengthscale "
        f"{fitted.lengthscale:.3f} alpha, signal {fitted.signal_sd:.3f} nats, batch offset {fitted.offset_sd:.3f} "
        f"nats, persistence {fitted.persistence:.3f} a batch."
    )


def _bias(bias: LabelBias, alphas: Sequence[float]) -> str:
    return (
        f"`{bias.objective}` is corrected by {bias.images} late labels under {bias.conditions} conditions of "
        f"{bias.created_at[:10]} (evidence {bias.evidence:.1f} nats): {bias_text(bias.nats, bias.sd, alphas)}."
    )


def _scene(proof: SceneProof) -> str:
    verdict = "may be served" if proof.proves else "may not be served, by these labels"
    return f"scene_label {verdict}: {scene_in_words(proof)} ({proof.created_at[:10]}, settings {proof.settings})."


def show_scene(found: SceneComparison, card: Path, *, smooths: bool) -> None:
    """Print a comparison of `scene_label` with `label`, and what to do with the card that has it."""
    proof = found.proof
    named = 'scene.prior = "served"' + (' and scene.smoothing = "served"' if smooths else "")
    right = f"label is right for {three(proof.label)} of them, scene_label for {three(proof.label + proof.gain[0])}"
    lines = [f"{proof.images} labelled images of {proof.cameras} cameras in {proof.batches} batches: {right}; labels "]
    lines = [f"{lines[0]}from {found.source}.", _scene(proof)]
    if proof.proves:
        lines.append(f"Written: {card}. To serve scene_label, name it as model.card, set {named}, and restart workers.")
    else:
        lines.append(
            f"Written: {card}, with these figures. A proof needs an interval above 0, and no camera or condition below "
            f"{100 * proof.bound:+.1f} points. Go on with beside, and compare again with more labels."
        )
    paper().print(Group(*map(Text, lines)))


def bias_text(nats: Sequence[float], sd: Sequence[float], alphas: Sequence[float]) -> str:
    """Return the bias in nats, with its 95 % interval, at a few alphas."""
    last = len(alphas) - 1
    shown = dict.fromkeys(round(last * part / _PARTS) for part in range(_PARTS + 1))
    return ", ".join(f"{nats[j]:+.3f} ±{1.96 * sd[j]:.3f} at {alphas[j]:g}" for j in shown)


def show_correction(found: Correction) -> None:
    """Print the estimated bias, and its effect on each condition when the others' labels estimate it."""
    images = sum(choice.images for choice in found.choices)
    print(f"{images} labelled images under {len(found.choices)} conditions; labels from {found.labels.source}.")
    evidence, gain = Text(_evidence(found.objective, found.alphas, found.bias)), Text(_cross_fitted(found.choices))
    paper().print(Group(_choices(found.choices), evidence, gain))


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
    _, gain = intervals(Kinds(images, after, before, np.ones_like(images)), seed=0)
    return (
        f"At the alpha that it chooses for a condition, {before.sum() / images.sum():.3f} of the images are right "
        f"without the correction, {after.sum() / images.sum():.3f} with the correction fitted to the other "
        f"conditions' labels: {_gain(gain)}."
    )


def show_replays(replays: Replays) -> None:
    """Print what the corrected card would have changed, from replays of a recording with the old and the new card."""
    totals, labels = replays.difference.totals, replays.difference.by_labels.whole
    before, after = replays.mean_alphas
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
            f"{_gain(labels.difference)}. The bias was fitted to these labels: rely on the result above, where "
            "each condition is judged by the labels of the others."
        )
    paper().print(Group(*map(Text, lines)))


def _gain(gain: Interval) -> str:
    # + 0.0 turns -0.0 into 0.0.
    value, low, high = (f"{round(100 * each, 1) + 0.0:+.1f}" for each in (gain.value, gain.low, gain.high))
    return f"{value} points" + (f" (95 %: {low} to {high})" if gain.is_known else "")


def staging_lines(root: str, card: Path, objective: str | None) -> str:
    """Return the commands that have a corrected card served; `objective` is one that the settings name, if any."""
    of_objective = "" if objective is None else f" --search.objective {objective}"
    return (
        "To serve with it:\n"
        f"  adawise pair stage {shlex.quote(root)} --model.card {shlex.quote(str(card))}{of_objective}\n"
        f"  adawise pair list {shlex.quote(root)}\n"
        f"  adawise pair switch {shlex.quote(root)}"
    )
