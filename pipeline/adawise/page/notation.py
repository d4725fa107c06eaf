"""The notation of numbers on a page: accuracies as .652, differences in points with their sign."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

NOTHING = "–"
LEVEL = "95\u00a0%"  # of all intervals; the two stay on one line


def three(value: float | None) -> str:
    """Format with three digits, as papers write accuracies: .652."""
    return _digits(value, 3)


def two(value: float | None) -> str:
    """Format with two digits, for forwards and alphas: 1.22 or .05."""
    return _digits(value, 2)


def _digits(value: float | None, digits: int) -> str:
    if value is None or math.isnan(value):
        return NOTHING
    text = f"{value:.{digits}f}"
    return minus(text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text)


def points(difference: float | None) -> str:
    """Format a difference of accuracies in points: +1.9."""
    if difference is None or math.isnan(difference):
        return NOTHING
    return minus(f"{100 * difference:+.1f}")


def points_between(ci: tuple[float, float]) -> str:
    """Format both ends of an interval of a difference, in points: +1.3 to +2.5."""
    return f"{points(ci[0])} to {points(ci[1])}"


def listed(parts: Iterable[str]) -> str:
    """Join as "a, b and c"."""
    items: Sequence[str] = list(parts)
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def minus(text: str) -> str:
    """Replace hyphens by the minus sign that is as wide as a plus."""
    return text.replace("-", "−")
