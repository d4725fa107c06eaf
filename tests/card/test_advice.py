from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adawise.adapt.objective import DEFAULT, NAMES
from adawise.card.advice import AUTO, OWN, advise, chosen, evaluate_conditions
from adawise.card.card import Card, Condition, ObjectiveResult, make_card

ALPHAS = (0.0, 0.5, 1.0)
N, CLASSES = 600, 5


def sample(right: float, sharpness: float, *, seed: int) -> tuple[Tensor, Tensor]:
    """Logits `[N, C]` that name the label on that share of the images, and labels; all as sure as `sharpness` says."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (N,), generator=generator)
    named = torch.where(torch.rand(N, generator=generator) < right, labels, (labels + 1) % CLASSES)
    z = torch.nn.functional.one_hot(named, CLASSES) * sharpness + 0.1 * torch.randn(N, CLASSES, generator=generator)
    return z, labels


def at_each_alpha(rights: tuple[float, ...], sharpness: tuple[float, ...]) -> tuple[list[Tensor], Tensor]:
    """The same labels at every alpha."""
    samples = [sample(right, sharp, seed=1) for right, sharp in zip(rights, sharpness, strict=True)]
    return [z for z, _ in samples], samples[0][1]


def a_card() -> tuple[Card, list[Tensor], Tensor]:
    """Fine-tuned weights (alpha 1) that are right more often, and far surer than they are right."""
    logits, labels = at_each_alpha((0.7, 0.8, 0.85), (2.5, 3.0, 7.0))
    card = make_card(logits.__getitem__, labels, alphas=ALPHAS, identity={}, created_at="now")
    return card, logits, labels


def by_name(evaluated: tuple[ObjectiveResult, ...], condition: str) -> dict[str, ObjectiveResult]:
    return {one.objective: one for one in evaluated if one.condition == condition}


def test_each_objective_is_judged_by_the_accuracy_at_the_alpha_that_it_chooses() -> None:
    card, home, home_labels = a_card()
    # under shift the fine-tuned model is as sure as ever and often wrong; zero-shot stays what it was
    logits, labels = at_each_alpha((0.7, 0.6, 0.4), (2.5, 2.0, 7.0))
    fog = Condition("fog", logits.__getitem__, labels)
    evaluated = by_name(evaluate_conditions(Condition(OWN, home.__getitem__, home_labels), [fog], card), "fog")
    assert evaluated.keys() == set(NAMES)
    for one in evaluated.values():
        assert one.best_accuracy == one.zero_shot == pytest.approx(0.7, abs=0.05)
        assert one.fine_tuned == pytest.approx(0.4, abs=0.05)
        assert one.images == N
        if one.alpha in ALPHAS:  # both halves chose it
            j = ALPHAS.index(one.alpha)
            assert one.accuracy == pytest.approx(float((logits[j].argmax(-1) == labels).double().mean()))
    assert evaluated["entropy"].alpha == 1.0  # the known trap
    assert evaluated["calibrated_tsallis"].alpha < 1.0  # whose temperatures know of it


def test_nothing_is_judged_by_a_card_of_the_same_images() -> None:
    # whoever fits and judges on the same images lets `atc` know every accuracy, to the image
    noise = torch.Generator().manual_seed(5)
    random = [torch.randn(16, CLASSES, generator=noise) for _ in ALPHAS]
    labels = torch.randint(CLASSES, (16,), generator=noise)
    card = make_card(random.__getitem__, labels, alphas=ALPHAS, identity={}, created_at="now")
    rights = [float((z.argmax(-1) == labels).double().mean()) for z in random]
    known = card.objective("atc")
    assert rights[min(range(3), key=lambda j: known(random[j], j).mean())] == max(rights)
    honest = by_name(evaluate_conditions(Condition(OWN, random.__getitem__, labels), (), card), OWN)["atc"]
    assert honest.accuracy < honest.best_accuracy


def test_conditions_of_the_same_images_share_their_evidence() -> None:
    card, home, home_labels = a_card()
    logits, labels = at_each_alpha((0.7, 0.6, 0.4), (2.5, 2.0, 7.0))
    fogs = [Condition(f"fog {k}", logits.__getitem__, labels) for k in range(6)]
    others = Condition("dusk", lambda j: logits[j].flip(0), labels.flip(0))
    evaluated = evaluate_conditions(Condition(OWN, home.__getitem__, home_labels), [*fogs, others], card)
    images = {one.condition: one.images for one in evaluated}
    assert images == {OWN: N, "dusk": N, **{one.name: N // 6 for one in fogs}}


def test_a_gain_on_few_images_under_many_conditions_is_a_draw_and_older_cards_keep_what_they_said() -> None:
    kinds = [(f"fog {k}", TUNED) for k in range(6)] + [(f"new {k}", ZERO) for k in range(6)]
    gain = [one for name, ends in kinds for one in results(name, ends, tsallis=0.6, relative=0.64)]
    older = replace(a_card()[0], fine_tuned_interval=(0.8, 0.9), temperature=(1.0, 1.0, 0.85), judged=tuple(gain))
    assert advise(older).objective == "relative"
    shared = tuple(replace(one, images=one.images // 6) for one in gain)
    assert advise(replace(older, judged=shared)).objective == "tsallis"


def test_a_sample_too_small_to_halve_is_not_judged() -> None:
    card, logits, labels = a_card()
    small = Condition(OWN, lambda j: logits[j][:7], labels[:7])
    assert evaluate_conditions(small, (), card) == ()
    evaluated = evaluate_conditions(Condition(OWN, logits.__getitem__, labels), [replace(small, name="fog")], card)
    assert {one.condition for one in evaluated} == {OWN}


def results(condition: str, ends: tuple[float, float], **accuracies: float) -> list[ObjectiveResult]:
    return [ObjectiveResult(condition, 100, name, 0.5, accuracy, 0.95, *ends) for name, accuracy in accuracies.items()]


TUNED, ZERO = (0.5, 0.7), (0.7, 0.5)  # accuracies of the ends
FOG = {"tsallis": 0.7, "relative": 0.7, "calibrated_entropy": 0.8}
NEW = {"tsallis": 0.7, "relative": 0.7, "calibrated_entropy": 0.5}
BOTH = [*results("fog", TUNED, tsallis=0.6, relative=0.7), *results("new", ZERO, tsallis=0.6, relative=0.6)]
DRAW = [*results("fog", TUNED, tsallis=0.6, relative=0.609), *results("new", ZERO, tsallis=0.6, relative=0.61)]
MANY_FOGS = [one for k in range(9) for one in results(f"fog {k}", TUNED, tsallis=0.8, relative=0.6)]


@pytest.mark.parametrize(
    ("temperature", "found", "recommended"),
    [
        (0.85, [], "tsallis"),
        (1.09, [], "relative"),
        (0.99, [], "relative"),
        (0.85, results("fog", TUNED, **FOG), "tsallis"),
        (1.09, results("fog", TUNED, **FOG), "relative"),
        (0.85, results("new", ZERO, **NEW), "tsallis"),
        (0.85, BOTH, "relative"),
        (0.85, DRAW, "tsallis"),
        (1.09, DRAW, "relative"),
        (
            1.09,
            [*results("fog", TUNED, tsallis=0.9, relative=0.6), *results("new", ZERO, tsallis=0.6, relative=0.6)],
            "tsallis",
        ),
        (0.85, [*MANY_FOGS, *results("new", ZERO, tsallis=0.3, relative=0.6)], "relative"),
        (0.85, [*results("fog", TUNED, tsallis=0.6, atc=0.9), *results(OWN, ZERO, tsallis=0.6, atc=0.9)], "tsallis"),
        (
            0.85,
            [*results("fog", TUNED, tsallis=0.6, atc=0.9), *results("dusk", (0.71, 0.7), tsallis=0.6, atc=0.9)],
            "tsallis",
        ),
    ],
    ids=[
        "nothing but sound confidence",
        "nothing but over-confidence",
        "nothing but confidence that so few images cannot tell from over-confidence",
        "what runs to alpha 1 is not proven by conditions where that is right",
        "nor where the model is over-confident",
        "nor what runs to alpha 0 by the opposite",
        "both kinds",
        "a draw of the sound",
        "a draw of the over-confident",
        "both kinds beat confidence",
        "both kinds weigh the same",
        "the own sample is of no kind",
        "nor are ends that are equal",
    ],
)
def test_an_objective_is_recommended_for_what_it_served_each_way_or_else_by_confidence_at_home(
    temperature: float, found: list[ObjectiveResult], recommended: str
) -> None:
    interval = temperature - 0.05, temperature + 0.05
    card = replace(a_card()[0], temperature=(1.0, 1.0, temperature), fine_tuned_interval=interval, judged=tuple(found))
    advice = advise(card)
    assert advice.objective == recommended
    measured = recommended != ("relative" if interval[1] > 1.0 else "tsallis")
    assert ("it serves" if measured else f"temperature there: {temperature:.2f}, 95 %: ") in advice.reason
    assert ("too few images to be sure" in advice.reason) == (not measured and interval[0] <= 1.0 < interval[1])
    older = replace(card, fine_tuned_interval=None)
    assert advise(older).objective == ("tsallis" if temperature == 0.99 else recommended)
    assert chosen(AUTO, card) == recommended


def test_temperatures_of_images_under_shift_make_both_models_comparable() -> None:
    card = replace(a_card()[0], shifted_temperature=(1.0, 1.1, 1.25))
    advice = advise(card)
    assert advice.objective == "calibrated_tsallis"
    assert "zero-shot 1.00, fine-tuned 1.25" in advice.reason
    better = [
        *results("fog", TUNED, calibrated_tsallis=0.6, atc=0.7),
        *results("new", ZERO, calibrated_tsallis=0.6, atc=0.6),
    ]
    assert chosen(AUTO, replace(card, judged=tuple(better))) == "atc"


def test_auto_is_the_default_without_a_card_and_a_name_stays_what_it_is() -> None:
    assert chosen(AUTO, None) == DEFAULT
    assert [chosen(name, a_card()[0]) for name in NAMES] == list(NAMES)
