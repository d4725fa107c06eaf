"""Settings -> the rules of alerts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adawise.errors import SettingsError
from adawise.publish.alerts import LabelRule, Rule, SilenceRule
from adawise.settings.alerts import AlertRule, AlertsSettings
from adawise.text import unknown_classes


def alert_rules(settings: AlertsSettings, classes: Sequence[str]) -> tuple[Rule, ...]:
    """Return the rules over these classes. Raises SettingsError for a label that is none of them."""
    unknown = [text for rule in settings.rules for text in _unknown(rule, classes)]
    if unknown:
        raise SettingsError(f"alerts.rules: {'; '.join(unknown)}. Correct them, or model.classes")
    return tuple(map(_rule, settings.rules))


def _unknown(rule: AlertRule, classes: Sequence[str]) -> Iterator[str]:
    return (f"rule {rule.name}: {text}" for text in unknown_classes(rule.labels, classes))


def _rule(rule: AlertRule) -> Rule:
    if rule.silent_after is not None:
        return SilenceRule(rule.name, rule.silent_after, rule.streams)
    of = rule.of or rule.frames
    clear_frames = rule.clear_frames or of
    return LabelRule(rule.name, frozenset(rule.labels), rule.confidence, rule.frames, of, clear_frames, rule.streams)
