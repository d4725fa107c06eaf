"""Settings -> the parts that several commands build alike: decoder, exploration, rules of alerts and shortlists.

The limits of messages are set once, for the worker and for all who read its messages. Nothing here loads open_clip,
because tables do without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from PIL import Image
from torch import Tensor

from adawise.adapt.shortlist import Shortlist, Shortlists
from adawise.adapt.strategies.warm import Exploration
from adawise.decode.message import Decoder
from adawise.decode.rendition import Rendition
from adawise.errors import SettingsError
from adawise.publish.alerts import LabelRule, Rule, SilenceRule
from adawise.settings import DecodeSettings, SearchSettings
from adawise.settings.alerts import AlertRule, AlertsSettings
from adawise.settings.scene import SceneSettings
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


def shortlists(settings: SceneSettings, classes: Sequence[str]) -> Shortlists:
    """Return the shortlists over these classes.

    Raises:
        SettingsError: a name is none of the classes, or fewer than two classes are left.
    """
    places = {name: index for index, name in enumerate(classes)}
    mistakes, rules = list[str](), list[tuple[str, Shortlist | None]]()
    for rule in settings.shortlists:
        where = f"shortlist of {rule.streams}"
        if unknown := unknown_classes([*rule.classes, *rule.exclude], places):
            mistakes += [f"{where}: {text}" for text in unknown]
            continue
        kept = {*(rule.classes or classes)}.difference(rule.exclude)
        if len(kept) < 2:
            mistakes.append(f"{where}: it excludes all classes but {len(kept)}, expected two or more to be left")
        is_all = len(kept) == len(classes)
        rules.append((rule.streams, None if is_all else Shortlist.of([places[name] for name in kept], classes)))
    if mistakes:
        raise SettingsError(f"scene.shortlists: {'; '.join(mistakes)}. Correct them, or model.classes")
    return Shortlists(tuple(rules))
