"""The losses, against what their formulas say by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from adawise_lab.finetune.learner import balanced, cross_entropy, flyp, log_prior

SCALE = torch.tensor(3.0)


def embeddings(n: int, seed: int) -> Tensor:
    return normalize(torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)), dim=-1)


def by_hand(images: Tensor, texts: Tensor, labels: list[int], smoothing: float) -> float:
    """FLYP's loss as sums over pairs, without any tensor operation over rows."""

    def one_way(a: Tensor, b: Tensor) -> float:
        total = 0.0
        for i in range(len(labels)):
            counted = [j for j in range(len(labels)) if j == i or labels[j] != labels[i]]
            z = {j: float(SCALE) * float(a[i] @ b[j]) for j in counted}
            log_sum = math.log(sum(math.exp(value) for value in z.values()))
            own = log_sum - z[i]
            spread = sum(log_sum - value for value in z.values()) / len(counted)
            total += (1 - smoothing) * own + smoothing * spread
        return total / len(labels)

    return (one_way(images, texts) + one_way(texts, images)) / 2


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 1, 0, 2], [1, 1, 1, 1]])
def test_flyp_is_the_contrastive_loss_over_pairs_of_other_classes(labels: list[int], smoothing: float) -> None:
    images, texts = embeddings(4, 0), embeddings(4, 1)
    loss = flyp(images, texts, torch.tensor(labels), scale=SCALE, smoothing=smoothing)
    assert float(loss) == pytest.approx(by_hand(images, texts, labels, smoothing), rel=1e-5)


def test_without_duplicates_flyp_is_the_loss_of_clip() -> None:
    images, texts = embeddings(6, 2), embeddings(6, 3)
    logits = SCALE * images @ texts.T
    own = torch.arange(6)
    clip = (torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(flyp(images, texts, own, scale=SCALE), clip)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_image_is_not_pushed_away_from_the_prompt_of_another_image_of_its_class(smoothing: float) -> None:
    images, texts = embeddings(3, 4), embeddings(3, 5).requires_grad_()
    labels = torch.tensor([0, 0, 1])
    torch.autograd.backward(flyp(images, texts, labels, scale=SCALE, smoothing=smoothing))
    assert texts.grad is not None
    assert bool(texts.grad.isfinite().all())
    of_one_class = flyp(images[:2], texts.detach()[:2], labels[:2], scale=SCALE, smoothing=smoothing)
    assert float(of_one_class) == 0.0  # nothing to tell apart


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_is_that_of_scaled_cosines(smoothing: float) -> None:
    images, head, labels = embeddings(4, 6), embeddings(3, 7), [2, 0, 1, 1]
    total = 0.0
    for i, label in enumerate(labels):
        z = [float(SCALE) * float(images[i] @ row) for row in head]
        log_sum = math.log(sum(math.exp(value) for value in z))
        total += (1 - smoothing) * (log_sum - z[label]) + smoothing * sum(log_sum - value for value in z) / len(z)
    loss = cross_entropy(images, head, torch.tensor(labels), scale=SCALE, smoothing=smoothing)
    assert float(loss) == pytest.approx(total / 4, rel=1e-5)


COUNTS = [100, 7, 1]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_balanced_loss_and_its_gradient_are_those_of_logits_raised_by_the_counts(smoothing: float) -> None:
    images, head, labels = embeddings(4, 6).requires_grad_(), embeddings(3, 7), np.array([2, 0, 1, 1])
    loss = balanced(images, head, torch.tensor(labels), log_prior(COUNTS), scale=SCALE, smoothing=smoothing)
    torch.autograd.backward(loss)
    n, h = np.array(COUNTS, dtype=float), head.double().numpy()
    z = float(SCALE) * images.detach().double().numpy() @ h.T
    p = n * np.exp(z) / (n * np.exp(z)).sum(axis=1, keepdims=True)  # equation 3
    target = (1 - smoothing) * np.eye(3)[labels] + smoothing * n / n.sum()
    assert loss.item() == pytest.approx(-(target * np.log(p)).sum(axis=1).mean(), rel=1e-5)
    assert images.grad is not None
    expected = float(SCALE) * (p - target) @ h / len(labels)
    np.testing.assert_allclose(images.grad.numpy(), expected, rtol=1e-4, atol=1e-6)  # float32


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_with_equally_many_images_of_each_class_the_balanced_loss_is_cross_entropy(count: int) -> None:
    images, head, labels = embeddings(8, 6), embeddings(3, 7), torch.tensor([2, 0, 1, 1, 0, 2, 2, 0])
    equal = log_prior([count] * 3)
    assert torch.equal(
        balanced(images, head, labels, equal, scale=SCALE), cross_entropy(images, head, labels, scale=SCALE)
    )
    torch.testing.assert_close(
        balanced(images, head, labels, equal, scale=SCALE, smoothing=0.2),
        cross_entropy(images, head, labels, scale=SCALE, smoothing=0.2),
        rtol=1e-6,
        atol=1e-6,
    )


def test_a_class_without_images_counts_as_one_with_the_mean_of_the_others() -> None:
    np.testing.assert_allclose(log_prior([6, 2, 0]).exp().numpy(), [1.0, 1 / 3, 2 / 3], rtol=1e-6)
    images, head, labels = embeddings(4, 6), embeddings(3, 7), torch.tensor([0, 1, 1, 0])
    loss = balanced(images, head, labels, log_prior([5, 5, 0]), scale=SCALE)
    assert torch.equal(loss, cross_entropy(images, head, labels, scale=SCALE)), "images of the others are even"
    own = balanced(images, head, labels, torch.tensor([0.0, 0.0, -torch.inf]), scale=SCALE)
    assert float(own) < float(loss), "it takes part"
