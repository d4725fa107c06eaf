"""The grid of a sweep: settings with several values each, and the variants that are their combinations. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

from adawise.settings.describe import SETTINGS
from adawise.settings.mistakes import nearest

MOST_VARIANTS = 1_000
SWEPT = ("model", "search", "scene", "batch", "decode", "predict", "limits")
"""The groups of settings that what a replay serves depends on."""

Variant = Mapping[str, str]
"""The values of a variant, by the full name of the setting, as they were given."""


def parse_grid(text: str) -> tuple[Variant, ...]:
    """Return the variants of a grid: all combinations of the values, the last setting varying fastest.

    Args:
        text: settings separated by spaces, each with its values separated by commas.

    Raises:
        ValueError: a setting is not known, there twice, or has no influence on a replay; a value is empty or there
            twice; or there are more than 1,000 combinations.

    Example:
        >>> [dict(variant) for variant in parse_grid("search.strategy=warm,grid search.price=.02")]
        [{'search.strategy': 'warm', 'search.price': '.02'}, {'search.strategy': 'grid', 'search.price': '.02'}]
    """
    axes: dict[str, Sequence[str]] = {}
    for word in text.split():
        name, _, given = word.partition("=")
        name, values = name.replace("-", "_"), given.split(",")
        if name not in SETTINGS:
            near = nearest(name, SETTINGS)
            raise ValueError(f"there is no setting {name!r}" + (f"; did you mean {near!r}?" if near else ""))
        if name.partition(".")[0] not in SWEPT:
            raise ValueError(f"{name} has no influence on what a replay serves; take one of {', '.join(SWEPT)}")
        if name in axes:
            raise ValueError(f"{name} is there twice; give its values once, separated by commas")
        if not all(values) or len({*values}) < len(values):
            raise ValueError(f"{name} has an empty value, or one twice")
        axes[name] = values
    if not axes:
        raise ValueError("it is empty")
    if (count := prod(map(len, axes.values()))) > MOST_VARIANTS:
        raise ValueError(f"it has {count} combinations; expected at most {MOST_VARIANTS}")
    return tuple(dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


def in_words(variant: Variant) -> str:
    """Return a variant as it is written in a grid, such as `search.strategy=warm search.price=.02`."""
    return " ".join(f"{name}={value}" for name, value in variant.items())
