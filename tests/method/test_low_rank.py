"""Factors of low rank: the steps are those that autograd takes, and nothing else of the model moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adawise.clip.load import load_starting_model
from adawise_lab.finetune.recipe import Recipe
from tests.models import CLASSES, TEMPLATES, random_images, write_pair
from tools.method.low_rank import FactorOptimizer, LowRankLearner, main

pytestmark = pytest.mark.check("tools")
RECIPE = Recipe(blocks=1, learning_rate=1e-2, layer_decay=1.0)


def test_steps_on_factors_are_those_of_a_model_whose_weights_are_made_of_them() -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(7, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False))
    matrices = dict(whole.named_parameters())
    ours = FactorOptimizer(matrices, 2, RECIPE)
    start = [w.detach().clone() for w in matrices.values()]
    factors = [nn.Parameter(f.detach().clone()) for pair in ours.factors.values() for f in pair]
    theirs = torch.optim.AdamW(factors, RECIPE.learning_rate, (0.9, 0.98), 1e-6, weight_decay=RECIPE.weight_decay)
    x, y = torch.randn(20, 7), torch.randint(3, (20,))
    for _ in range(5):
        ours.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(whole(x), y))
        ours.step()
        theirs.zero_grad()
        b1, a1, b2, a2 = factors
        hidden = nn.functional.linear(x, start[0] + b1 @ a1).relu()
        torch.autograd.backward(nn.functional.cross_entropy(nn.functional.linear(hidden, start[1] + b2 @ a2), y))
        theirs.step()
        for w, w0, b, a in zip(matrices.values(), start, factors[::2], factors[1::2], strict=True):
            torch.testing.assert_close(w, w0 + b @ a)
    assert all(not torch.equal(w, w0) for w, w0 in zip(matrices.values(), start, strict=True))


def test_the_seed_of_a_recipe_decides_its_first_factors() -> None:
    def first(seed: int) -> Tensor:
        matrices = {"0.weight": nn.Parameter(torch.zeros(5, 7))}
        ((_, a),) = FactorOptimizer(matrices, 2, replace(RECIPE, seed=seed)).factors.values()
        return a

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_a_run_is_not_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An extension would train anew from theta_0, and say that it went on."""
    monkeypatch.setattr("sys.argv", ["low_rank", "2", "--labelled", "images", "-o", "out", "--resume"])
    with pytest.raises(SystemExit, match="neither resumed nor extended"):
        main()


def test_only_matrices_of_the_last_blocks_learn_and_their_change_has_the_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = write_pair(tmp_path / "pair")
    start = load_starting_model(pair.theta_0, pair.theta_0)
    tokens = start.tokenizer([template.replace("{}", name) for name in CLASSES for template in TEMPLATES])
    before = {name: p.clone() for name, p in start.model.named_parameters()}
    monkeypatch.setattr(LowRankLearner, "rank", 2)
    learner = LowRankLearner(
        start.model,
        tokens,
        classes=len(CLASSES),
        counts=[2] * len(CLASSES),
        mean=start.mean,
        std=start.std,
        recipe=RECIPE,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    batch = random_images(6), torch.tensor([0, 1, 2, 0, 1, 2])
    losses = [learner.update([(batch, torch.zeros(6, dtype=torch.int64))], 1e-2)[0] for _ in range(8)]
    assert losses[-1] < losses[0]
    changes = {name: p - before[name] for name, p in start.model.named_parameters() if not torch.equal(p, before[name])}
    matrices = {"attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"}
    assert set(changes) == {f"visual.transformer.resblocks.2.{name}" for name in matrices}
    for change in changes.values():
        assert 1 <= torch.linalg.matrix_rank(change, rtol=1e-4) <= 2
