"""The strategies by name."""

from __future__ import annotations

from pipeline.adapt.objective import Objective
from pipeline.adapt.search import Strategy
from pipeline.adapt.strategies.fixed import FixedSearch
from pipeline.adapt.strategies.grid import GridSearch
from pipeline.adapt.strategies.warm import Exploration, WarmSearch

NAMES = ("warm", "botorch", "grid", "fixed")


def strategy(
    name: str,
    *,
    alphas: tuple[float, ...],
    objective: Objective,
    context: str,
    alpha: float,
    exploration: Exploration,
) -> Strategy:
    """The strategy of that name over the grid `alphas`; it starts (`fixed`: stays) at the one nearest to `alpha`.

    `context` names what a state depends on beside the strategy: the objective and the model pair.
    """
    start = min(range(len(alphas)), key=lambda j: abs(alphas[j] - alpha))
    match name:
        case "warm":
            return WarmSearch(alphas, objective, context, start, exploration)
        case "botorch":
            from pipeline.adapt.strategies.botorch import BotorchSearch  # two seconds of imports that only it needs

            return BotorchSearch(alphas, objective, context, start, exploration)
        case "grid":
            return GridSearch(alphas, objective, context, start, exploration.min_images)
        case "fixed":
            return FixedSearch(alphas, objective, context, start)
    raise ValueError(f"expected one of {', '.join(NAMES)}, got {name!r}")
