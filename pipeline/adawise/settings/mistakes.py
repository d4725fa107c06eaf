"""The mistakes in file, environment and flags. All of them are reported at once, each with its remedy.

A value is shown only if its setting is known not to be secret. The value of an unknown setting is never shown: it may
be a password under a misspelt name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from typing_extensions import override

from adawise.errors import SettingsError
from adawise.text import counted, near_match

NOT_SET = "not set"
"""The `origin` of a mistake about a value that is missing."""

_MISSPELT = 0.85  # similarity of long names that differ by one character


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake to correct. `given` is the value; None if there is none, or if it must not be shown."""

    name: str  # dotted name of the setting, or the flag
    origin: str  # place of the value
    problem: str  # what is expected or wrong, and the remedy
    given: str | None = None

    @override
    def __str__(self) -> str:
        head = self.name if self.given is None else f"{self.name} = {self.given}"
        return f"{head}  ({self.origin})\n      {self.problem}"

    def as_json(self) -> dict[str, str | None]:
        """Return the mistake as an object for `--json`."""
        return asdict(self)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.75) -> str | None:
    """Return the known dotted name that is most likely meant; None if none is near.

    This is the only known name with the same key in another table, else one of its table with nearly its spelling, else
    the only one of its table that has some of its words and no other, else a name of similar spelling, else a name
    whose key has a similar spelling.
    """
    names = list(known)
    key = name.rpartition(".")[2]
    same_key = [other for other in names if other.rpartition(".")[2] == key]
    if len(same_key) == 1:
        return same_key[0]
    beside = {other.rpartition(".")[2]: other for other in names if _table(other) == _table(name)}
    if (near := near_match(key, beside, _MISSPELT)) is not None:
        return beside[near]
    shorter = [other for other in beside.values() if _words(other) < _words(name)]
    if len(shorter) == 1:  # by its spelling `batch.max_images` is nearer to `batch.max_age_s` than to `batch.images`
        return shorter[0]
    if (near := near_match(name, names, cutoff)) is not None:
        return near
    # If several tables have a key, the first one in the help is meant: reversed, it overwrites the others.
    keys = {other.rpartition(".")[2]: other for other in reversed(names)}
    near = near_match(key, keys, cutoff)
    return None if near is None else keys[near]


def _table(name: str) -> str:
    return name.rpartition(".")[0]


def _words(name: str) -> set[str]:
    """Return the words of a name's key."""
    return {*name.rpartition(".")[2].split("_")}


def error_of(mistakes: Sequence[Mistake]) -> SettingsError:
    """Return one error with all mistakes."""
    count = counted(len(mistakes), "thing")
    return SettingsError("\n".join([f"{count} to correct", *(f"  - {mistake}" for mistake in mistakes)]))
