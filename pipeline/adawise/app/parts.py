"""Settings -> the parts that several commands build alike: the decoder, the exploration and the rules of alerts.

The limits of messages are set once, for the worker and for all who read its messages. Nothing here loads open_clip,
because tables do without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from PIL import Image
from torch import Tensor

from adawise.adapt.strategies.warm import Exploration
from adawise.decode.message import Decoder
from adawise.decode.rendition import Rendition
from adawise.errors import SettingsError
from adawise.publish.alerts import LabelRule, Rule, SilenceRule
from adawise.settings import DecodeSettings, SearchSettings
from adawise.settings.alerts import AlertRule, AlertsSettings
from adawise.text import unknown_classes


def rendition(settings: DecodeSettings) -> Rendition:
    """Return how pictures are treated before they are resized."""
    low, _, high = settings.grey16_range.partition("-")
    return Rendition(
        orientation=settings.orientation,
        grey16_range=(int(low), int(high)) if high else None,
        reduced=settings.reduced,
    )


def open_decoder(settings: DecodeSettings, preprocess: Callable[[Image.Image], Tensor]) -> Decoder:
    """Return a decoder from messages to images by `preprocess`, within the limits of the settings."""
    return Decoder(
        preprocess,
        max_message_bytes=settings.max_message_bytes,
        max_rows=settings.max_rows,
        max_pixels=settings.max_pixels,
    )


def exploration(chosen: SearchSettings) -> Exploration:
    """Return the exploration policy of the settings."""
    return Exploration(
        budget=chosen.budget,
        price=chosen.price,
        images=chosen.explore_images,
        every=chosen.explore_every,
        min_images=chosen.min_images,
        conditions=chosen.conditions,
    )


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
