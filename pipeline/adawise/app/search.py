"""Settings -> how strategies explore; not in `model`, which loads open_clip, because tables do without it."""

from __future__ import annotations

from adawise.adapt.strategies.warm import Exploration
from adawise.settings import SearchSettings


def exploration(chosen: SearchSettings) -> Exploration:
    """Return the exploration policy of the settings."""
    return Exploration(
        budget=chosen.budget,
        price=chosen.price,
        images=chosen.explore_images,
        every=chosen.explore_every,
        min_images=chosen.min_images,
        conditions=chosen.conditions,
    )
