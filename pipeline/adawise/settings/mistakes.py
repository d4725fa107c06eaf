"""Mistakes of file, environment and flags: found all, told all at once, each with its remedy.

A value is only ever shown for a setting that is known not to be secret: what stands under an unknown name may be a
password under a misspelt one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from typing_extensions import override

from adawise.errors import SettingsError
from adawise.near import near_match
from adawise.text import counted

NOT_SET = "not set"
"""The origin of a value that is missing."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to correct. `given` is None where there is no value, or none that may be shown."""

    name: str  # dotted name of the setting, or the flag
    origin: str  # where the value came from
    problem: str  # what was expected, or what is wrong, and the remedy
    given: str | None = None

    @override
    def __str__(self) -> str:
        head = self.name if self.given is None else f"{self.name} = {self.given}"
        return f"{head}  ({self.origin})\n      {self.problem}"

    def as_json(self) -> dict[str, str | None]:
        """The mistake as an object for `--json`."""
        return asdict(self)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.75) -> str | None:
    """The known dotted name that is most likely meant: the same key in another table, or one of few letters more."""
    names = list(known)
    key = name.rpartition(".")[2]
    same_key = [other for other in names if other.rpartition(".")[2] == key]
    if len(same_key) == 1:
        return same_key[0]
    if (near := near_match(name, names, cutoff)) is not None:
        return near
    keys = {other.rpartition(".")[2]: other for other in reversed(names)}  # of several, the first in the help
    near = near_match(key, keys, cutoff)
    return None if near is None else keys[near]


def error_of(mistakes: Sequence[Mistake]) -> SettingsError:
    """All mistakes in one error."""
    count = counted(len(mistakes), "thing")
    return SettingsError("\n".join([f"{count} to correct", *(f"  - {mistake}" for mistake in mistakes)]))
