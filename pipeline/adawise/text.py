"""Durations, sizes, counts, accuracies and near names as text for people.

On pages an accuracy is .652, and a difference of accuracies is in points with its sign.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

_DURATIONS = ((86_400.0, "days", "day"), (3_600.0, "h", "hour"), (60.0, "min", "minute"), (1.0, "s", "second"))
_DIGITS = re.compile(r"[0-9]+")
_SIZES = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20))
NOTHING = "–"
PER_CENT = "\u00a0%"  # behind a number, on its line
LEVEL = f"95{PER_CENT}"  # of all intervals; the two stay on one line


def as_duration(seconds: float) -> str:
    """Return a duration in the largest unit of which it has at least two, such as 12 s, 5 min, 3 h or 2 days."""
    for length, unit, _ in _DURATIONS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def as_long_duration(seconds: float) -> str:
    """Return a duration in words, such as 1 hour, 90 minutes or 3 days.

    The unit is the largest of which the duration is a whole number, or at least two.
    """
    for length, _, unit in _DURATIONS:
        if seconds >= 2 * length or (seconds and seconds % length == 0):
            return counted(round(seconds / length), unit)
    return f"{seconds:g} seconds"


def as_size(count: float) -> str:
    """Return a number of bytes in the largest unit of which it has at least one, such as 3.4 GiB."""
    for unit, of in _SIZES:
        if count >= of:
            return f"{count / of:.1f} {unit}"
    return f"{count / 2**10:.0f} KiB"


def counted(count: int, one: str, several: str = "") -> str:
    """Return a count with its noun, such as 1 batch or 2,000 batches; `several` is a plural that is not `one` + s."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def separated(text: str | None) -> tuple[str, ...] | None:
    """Return the parts of a text that commas separate; None for None."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def some(names: Sequence[object], most: int = 3, separator: str = ", ") -> str:
    """Return the first `most` names and how many more there are, such as 0, 1, 2 and 7 more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(map(str, names[:most])) + more


def near_match(name: str, known: Iterable[str], cutoff: float = 0.75) -> str | None:
    """Return the known name that is most like `name`; None if none is similar enough.

    A name that differs only in its digits is no misspelling: it is the next camera, or the folder of yesterday.
    """
    without_digits = _DIGITS.sub("", name)
    others = [other for other in known if other == name or _DIGITS.sub("", other) != without_digits]
    return next(iter(get_close_matches(name, others, n=1, cutoff=cutoff)), None)


def unknown_classes(names: Iterable[str], classes: Collection[str]) -> list[str]:
    """Return a sentence on each of these names that is none of the classes, with the class that may be meant."""
    return [
        f"expected a class of model.classes, got {name!r}" + (f"; did you mean {near!r}?" if near else "")
        for name in dict.fromkeys(names)
        if name not in classes
        for near in (near_match(name, classes, 0.6),)
    ]


def three(value: float | None) -> str:
    """Format with three digits, as papers write accuracies: .652."""
    return _digits(value, 3)


def two(value: float | None) -> str:
    """Format with two digits, for forwards and alphas: 1.22 or .05."""
    return _digits(value, 2)


def small(share: float) -> str:
    """Format a share that may be very small: 0.32 or 0.004."""
    return f"{share:.2f}" if share >= 0.01 else f"{share:.1g}"


def _digits(value: float | None, digits: int) -> str:
    if value is None or math.isnan(value):
        return NOTHING
    text = f"{value:.{digits}f}"
    return minus(text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text)


def shared_layers(tail_share: float, why: str = "") -> str:
    """Return what an image costs at a second alpha, where two models share their first layers.

    Args:
        tail_share: that cost, as a share of a forward; 1 if they share none.
        why: the reason why none is shared; "" if it is not known.
    """
    if tail_share >= 1.0:
        return "nothing is shared" + (f" ({why})" if why else "")
    return f"equal first layers: an image at a second alpha costs {small(tail_share)} of a forward"


def percent(share: float) -> str:
    """Return a share as 42 %, with a digit after the point where a whole number would say none or all."""
    if math.isnan(share):
        return NOTHING
    whole = f"{100 * share:.0f}"
    exact = f"{100 * share:.1f}" if whole in {"0", "100"} and share not in {0.0, 1.0} else whole
    return f"{exact}{PER_CENT}"


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
