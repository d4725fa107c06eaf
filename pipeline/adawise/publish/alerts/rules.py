"""Alert rules: a class that is seen in enough images, or a camera that sends nothing. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class LabelRule:
    """Raised when `frames` of a camera's last `of` images show one of `labels`, each with at least `confidence`.

    Cleared when that has not held for `clear_frames` images in a row. `streams` is a shell pattern of stream ids.
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
    """Raised when a camera has sent nothing for `silent_s` seconds by the worker's clock.

    Cleared when it sends again.
    """

    name: str
    silent_s: float
    streams: str = "*"


Rule = LabelRule | SilenceRule


def covers(rule: Rule, stream_id: str) -> bool:
    """Return True if the rule applies to this camera."""
    return fnmatchcase(stream_id, rule.streams)


def digest(rule: Rule) -> str:
    """Return a digest of the rule's definition; a rule whose definition changed begins with an empty state."""
    text = repr([sorted(value) if isinstance(value, frozenset) else value for value in _values(rule)])
    return hashlib.sha256(f"{type(rule).__name__} {text}".encode()).hexdigest()[:16]


def _values(rule: Rule) -> list[object]:
    return [getattr(rule, name) for name in sorted(rule.__dataclass_fields__)]
