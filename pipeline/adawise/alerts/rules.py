"""What is to be told of: a class that is seen so often, or a camera that says nothing. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class LabelRule:
    """Raised when `frames` of the last `of` images of a camera are of one of `labels`, each by `confidence` at least.

    Cleared when that has not held for `clear_frames` images in a row. `streams` is a pattern as in a shell.
    """

    name: str
    labels: frozenset[str]
    confidence: float
    frames: int
    of: int
    clear_frames: int
    streams: str = "*"


@dataclass(frozen=True, slots=True)
class SilenceRule:
    """Raised when a camera has sent nothing for `silent_s` seconds, by the worker's clock; cleared when it does."""

    name: str
    silent_s: float
    streams: str = "*"


Rule = LabelRule | SilenceRule


def covers(rule: Rule, stream_id: str) -> bool:
    """Whether the rule is about this camera."""
    return fnmatchcase(stream_id, rule.streams)


def digest(rule: Rule) -> str:
    """Of what a rule says: the state of one that says something else now begins anew."""
    said = repr([sorted(value) if isinstance(value, frozenset) else value for value in _values(rule)])
    return hashlib.sha256(f"{type(rule).__name__} {said}".encode()).hexdigest()[:16]


def _values(rule: Rule) -> list[object]:
    return [getattr(rule, name) for name in sorted(rule.__dataclass_fields__)]
