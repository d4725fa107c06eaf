"""`adawise finetune` with factors of low rank (LoRA: Hu et al., 2022): theta_1 = theta_0 + B A in the image tower.

    python -m tools.method.low_rank RANK [options of adawise finetune, with --finetune.blocks]

Each matrix of the trained blocks gets factors B `[out, RANK]` and A `[RANK, in]`, and nothing else of the tower learns.
The pair is written with merged weights, so that everything after the training is as for any other pair. This answers
whether such a pair serves as well before anything is built that serves factors as such. A run is neither resumed nor
extended, because its files have no factors. The length of the gradient is clipped as that of whole matrices.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from adawise.__main__ import main as adawise
from adawise_lab.finetune import training
from adawise_lab.finetune.learner import _BETAS, _BLOCK, _EPSILON, Learner, _groups
from adawise_lab.finetune.recipe import Recipe


class FactorOptimizer(torch.optim.AdamW):
    """AdamW on the factors of matrices W = W_0 + B A, from the gradients that a backward pass leaves on W.

    W is written anew after each step, so that forward passes, checkpoints and the export see whole weights.

    Args:
        matrices: the trained matrices `[out, in]` by name.
        rank: of each product B A, at most.
        recipe: of the training; the rate falls towards the input as for whole matrices.
    """

    def __init__(self, matrices: Mapping[str, nn.Parameter], rank: int, recipe: Recipe) -> None:
        self._matrices = matrices
        self._start = {name: w.detach().clone() for name, w in matrices.items()}
        self.factors: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        random = torch.Generator().manual_seed(recipe.seed)  # the run seeds torch only when it starts
        for name, w in matrices.items():
            a = torch.empty(rank, w.shape[1])
            nn.init.kaiming_uniform_(a, a=math.sqrt(5.0), generator=random)
            b = torch.zeros(w.shape[0], rank, device=w.device)
            self.factors[name] = nn.Parameter(b), nn.Parameter(a.to(w.device))
        groups = _groups(matrices, recipe)
        for group in groups:
            names = [name for name, w in matrices.items() if any(w is p for p in group["params"])]
            group["params"] = [factor for name in names for factor in self.factors[name]]
        super().__init__(groups, recipe.learning_rate, _BETAS, _EPSILON)

    @override
    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for w in self._matrices.values():
            w.grad = None

    @override
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for name, w in self._matrices.items():
            b, a = self.factors[name]
            assert w.grad is not None, f"{name} has no gradient"
            b.grad, a.grad = w.grad @ a.T, b.T @ w.grad
        super().step(closure)
        for name, w in self._matrices.items():
            b, a = self.factors[name]
            w.copy_(torch.addmm(self._start[name], b, a))


class LowRankLearner(Learner):
    """A learner whose image tower learns the factors of its blocks' matrices alone."""

    rank = 16

    def __init__(self, model: Any, tokens: Tensor, *, recipe: Recipe, **others: Any) -> None:
        super().__init__(model, tokens, recipe=recipe, **others)
        if recipe.loss != "cross_entropy" or recipe.blocks is None:
            raise SystemExit("low_rank: expected --finetune.blocks K, and the loss cross_entropy")
        matrices = {name: p for name, p in self._parameters.items() if p.ndim == 2 and _BLOCK.match(name)}
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name in matrices)
        self._parameters = matrices
        self._theta_0 = {name: self._theta_0[name] for name in matrices}
        self._optimizer = FactorOptimizer(matrices, self.rank, recipe)


def main() -> None:
    """Run the command with factors of the rank that is the first argument."""
    if len(sys.argv) < 2 or not sys.argv[1].isdigit() or not (rank := int(sys.argv[1])):
        raise SystemExit(__doc__)
    if "--resume" in sys.argv:
        raise SystemExit("low_rank: a run is neither resumed nor extended; begin it anew with --overwrite")
    LowRankLearner.rank = rank
    training.Learner = LowRankLearner  # type: ignore[attr-defined]
    sys.exit(adawise(["finetune", *sys.argv[2:]]))


if __name__ == "__main__":
    main()
