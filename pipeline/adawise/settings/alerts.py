"""The settings of alerts: a list of rules, as `[[alerts.rules]]` in the file, or as JSON in other sources."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_serializer
from typing_extensions import override

from adawise.settings.group import Group, Text, tables
from adawise.settings.recording import DURATION_EXPECTED, Duration

MOST_RULES = 64
RULES_EXPECTED = (
    "a list of rules, each with a name and labels or silent_after: [[alerts.rules]] in the file, elsewhere JSON as "
    '[{"name": "forklift", "labels": ["forklift"]}]'
)


class AlertRule(Group):
    """One rule of alerts: it fires if a camera shows certain labels, or if a camera is silent."""

    name: Text
    streams: Text = "*"
    labels: tuple[Text, ...] = ()
    by: Literal["label", "scene_label"] = "label"
    confidence: float = Field(default=0.5, ge=0, le=1)
    frames: int = Field(default=3, ge=1, le=1_000)
    of: Annotated[int, Field(ge=1, le=1_000)] | None = None
    clear_frames: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    silent_after: Duration | None = Field(default=None, json_schema_extra={"expected": DURATION_EXPECTED})

    @field_serializer("silent_after", when_used="json-unless-none")
    def _as_written(self, value: float) -> str:
        return f"{value:g}s"

    @override
    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield the mistakes in a rule, such as neither or both of `labels` and `silent_after`. See `Group`."""
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", self.name):
            yield "name", "expected 1 to 100 of the characters A-Z a-z 0-9 . _ -"
        if bool(self.labels) == (self.silent_after is not None):
            yield "labels", "expected either labels or silent_after; give one of them"
        if self.silent_after is not None and self.silent_after < 1:
            yield "silent_after", "expected 1s or more"
        if self.silent_after is not None and (
            others := self.model_fields_set & {"by", "confidence", "frames", "of", "clear_frames"}
        ):
            yield sorted(others)[0], "a rule with silent_after does not use it; leave it out"
        if self.of is not None and self.of < self.frames:
            yield "of", f"expected frames ({self.frames}) or more: that many of the last `of` images must match"


def _rules(value: object) -> tuple[AlertRule, ...]:
    """Parse rules from the file's tables or from JSON.

    Raises:
        ValueError: with all mistakes in one sentence.
    """
    rules = tables(value, AlertRule, "rule", MOST_RULES)
    if twice := [name for name, count in Counter(rule.name for rule in rules).items() if count > 1]:
        raise ValueError("; ".join(f"the rule {name} is there twice" for name in twice))
    return rules


class AlertsSettings(Group):
    """The settings `[alerts]`: rules whose alerts are published when they begin to hold."""

    rules: Annotated[tuple[AlertRule, ...], BeforeValidator(_rules)] = Field(
        default=(),
        description="alert rules: labels seen in a number of a camera's images, or a silent camera "
        "(docs/guide/results.md)",
        json_schema_extra={"expected": RULES_EXPECTED, "metavar": "JSON"},
    )
