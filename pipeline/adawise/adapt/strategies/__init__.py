"""The strategies by name. A module of this folder is one strategy, and the module's name is the strategy's.

To add one, add its name to `adapt/names.py` and its file, with a class named after it: `warm` has `WarmSearch`. Code
that strategies share lies in `adapt/`. A module is imported when its strategy is requested: BoTorch takes two seconds.
"""

from __future__ import annotations

from dataclasses import fields, replace
from importlib import import_module
from typing import cast, get_args

from adawise.adapt.names import StrategyName
from adawise.adapt.objective import Objective
from adawise.adapt.search import Strategy
from adawise.adapt.strategies.warm import Exploration
from adawise.adapt.surrogate import Surrogate

NAMES: tuple[StrategyName, ...] = tuple(sorted(get_args(StrategyName)))


def strategy(
    name: str,
    *,
    alphas: tuple[float, ...],
    objective: Objective,
    context: str,
    alpha: float,
    exploration: Exploration,
    fitted: Surrogate | None = None,
    trusted: bool = False,
) -> Strategy:
    """Return the strategy of that name.

    Args:
        name: one of `NAMES`.
        alphas: the grid.
        objective: what is minimised.
        context: what a state depends on beside the strategy: the objective, the model pair and its card.
        alpha: a stream starts (`fixed`: stays) at the alpha of the grid that is nearest to it.
        exploration: when and how widely alternatives are tried.
        fitted: the surrogate with the hyper-parameters of the card, if it has them.
        trusted: the objective needs no guard against over-confident weights (`Card.trusts`). Where fine-tuned weights
            are right they contradict zero-shot on most images as well, which the cap would forbid.

    Raises:
        ValueError: no strategy has that name.
    """
    if name not in NAMES:
        raise ValueError(f"expected one of {', '.join(NAMES)}, got {name!r}")
    if trusted and exploration.disagreement is None:
        exploration = replace(exploration, disagreement=1.0)
    start = min(range(len(alphas)), key=lambda j: abs(alphas[j] - alpha))
    made = getattr(import_module(f"{__name__}.{name}"), f"{name.title().replace('_', '')}Search")
    known = {"fitted": fitted} if "fitted" in {field.name for field in fields(made)} else {}
    return cast(Strategy, made(alphas, objective, context, start, exploration, **known))
