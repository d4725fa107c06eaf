"""Durations, sizes, counts and near names as text for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_DURATIONS = ((86_400.0, "days", "day"), (3_600.0, "h", "hour"), (60.0, "min", "minute"), (1.0, "s", "second"))
_DIGITS = re.compile(r"[0-9]+")
_SIZES = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20))


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
