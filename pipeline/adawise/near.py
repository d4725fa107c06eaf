"""The name that the user likely meant, for messages about an unknown name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_DIGITS = re.compile(r"[0-9]+")


def near_match(name: str, known: Iterable[str], cutoff: float = 0.75) -> str | None:
    """Return the known name that is most like `name`; None if none is similar enough.

    A name that differs only in its digits is no misspelling: it is the next camera, or the folder of yesterday.
    """
    letters = _DIGITS.sub("", name)
    others = [other for other in known if other == name or _DIGITS.sub("", other) != letters]
    return next(iter(get_close_matches(name, others, n=1, cutoff=cutoff)), None)
