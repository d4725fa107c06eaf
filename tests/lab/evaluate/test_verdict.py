from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adawise.card.advice import advised_alpha, recommend
from adawise.card.card import Card, Condition, make_card
from adawise_lab.evaluate.assessment import assess_pair

ALPHAS = (0.0, 0.5, 1.0)
N, CLASSES = 240, 4


def condition(name: str, rights: tuple[float, ...], sharpness: tuple[float, ...], seed: int) -> Condition:
    """Images on which so many are right at each alpha, all as sure as `sharpness` says."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (N,), generator=generator)
    luck = torch.rand(N, generator=generator)
    noise = 0.1 * torch.randn(N, CLASSES, generator=generator)

    def logits(j: int) -> Tensor:
        named = torch.where(luck < rights[j], labels, (labels + 1) % CLASSES)
        return torch.nn.functional.one_hot(named, CLASSES) * sharpness[j] + noise

    return Condition(name, logits, labels)


HOME = condition("home", (0.7, 0.8, 0.9), (3.0, 4.0, 5.0), seed=1)
NEW = condition("new_clean", (0.8, 0.6, 0.4), (5.0, 4.0, 3.0), seed=2)
FOG = condition("new_fog2", (0.7, 0.5, 0.3), (5.0, 4.0, 3.0), seed=3)


def card_of(home: Condition) -> Card:
    return make_card(home.logits, home.labels, alphas=ALPHAS, identity={}, created_at="")


@pytest.mark.check("lab")
def test_adapting_is_measured_against_the_ends_and_the_best_fixed_alpha_by_group() -> None:
    judgement = assess_pair(card_of(HOME), [HOME, NEW, FOG])
    found = judgement.verdict
    assert 1.0 < judgement.fe < 3.0
    means = [sum(r) / 3 for r in zip((0.7, 0.8, 0.9), (0.8, 0.6, 0.4), (0.7, 0.5, 0.3), strict=True)]
    assert found.zero_shot == pytest.approx(means[0], abs=0.04)
    assert found.fine_tuned == pytest.approx(means[2], abs=0.04)
    assert (found.fixed_alpha, found.best_fixed) == (0.0, found.zero_shot)
    assert found.adapted > found.best_fixed + 0.03
    assert found.gain[1] > 0.0
    assert found.gain[1] < found.gain[0] < found.gain[2]
    by_name = {group.group: group for group in found.groups}
    assert {name: (group.conditions, group.images) for name, group in by_name.items()} == {
        "home": (1, N),
        "new": (2, N),
    }
    assert by_name["home"].adapted == pytest.approx(by_name["home"].fine_tuned, abs=0.03)
    assert by_name["new"].adapted == pytest.approx(by_name["new"].zero_shot, abs=0.03)
    assert advised_alpha(found) is None
    assert found.mixed_gain is not None
    assert found.mixed_gain[1] <= found.mixed_gain[0] < 0.01 < found.gain[0], "no alpha is right for a batch of all"
    assert assess_pair(card_of(HOME), [HOME]).verdict.mixed_gain is None
    assert recommend(found).alpha is None
    assert judgement.served.accuracy == pytest.approx(found.adapted, abs=1e-12)
    assert {name: len(labels) for name, labels in judgement.served.labels.items()} == dict.fromkeys(
        ("home", "new_clean", "new_fog2"), N
    )


def test_an_objective_that_goes_the_wrong_way_is_answered_by_a_fixed_alpha() -> None:
    sure_and_wrong = condition("new_clean", (0.8, 0.6, 0.3), (2.0, 4.0, 8.0), seed=2)
    judgement = assess_pair(card_of(HOME), [HOME, sure_and_wrong])
    found = judgement.verdict
    assert judgement.served.accuracy == pytest.approx(found.best_fixed, abs=1e-12)
    assert found.gain[0] < -0.05
    assert advised_alpha(found) == found.fixed_alpha == 0.0
    assert advised_alpha(replace(found, gain=(-0.001, -0.002, -0.0005))) is None, "a draw is no reason"
    assert advised_alpha(replace(found, gain=(-0.04, -0.09, 0.01))) is None, "nor are too few images"
    assert advised_alpha(None) is None
