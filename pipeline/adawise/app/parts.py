"""Settings -> the parts that several commands build alike: decoder, exploration, rules of alerts and shortlists.

The limits of messages are set once, for the worker and for all who read its messages. Nothing here loads open_clip,
because tables do without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from PIL import Image
from torch import Tensor

from adawise.adapt.shortlist import Shortlist, Shortlists, digest_of
from adawise.adapt.strategies.warm import Exploration
from adawise.decode.message import Decoder
from adawise.decode.rendition import Rendition
from adawise.errors import SettingsError
from adawise.publish.alerts import LabelRule, Rule, SilenceRule
from adawise.settings import DecodeSettings, SearchSettings
from adawise.settings.alerts import AlertRule, AlertsSettings
from adawise.settings.scene import SceneSettings
from adawise.text import unknown_classes

_SHOWN = 5  # mistakes of a kind that a message names
_SCENE_RECIPE = 1  # to be counted up where `adapt/prior.py` or `adapt/smoothing.py` correct otherwise than before


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


def alert_rules(settings: AlertsSettings, classes: Sequence[str], *, is_scene_served: bool = False) -> tuple[Rule, ...]:
    """Return the rules over these classes. Raises SettingsError for a label that is none of them.

    A rule goes by the label that results have: with `is_scene_served` each is a rule by `scene_label`.
    """
    unknown = [text for rule in settings.rules for text in _unknown(rule, classes)]
    if unknown:
        raise SettingsError(f"alerts.rules: {'; '.join(unknown)}. Correct them, or model.classes")
    return tuple(_rule(rule, by_scene=is_scene_served or rule.by == "scene_label") for rule in settings.rules)


def _unknown(rule: AlertRule, classes: Sequence[str]) -> Iterator[str]:
    return (f"rule {rule.name}: {text}" for text in unknown_classes(rule.labels, classes))


def _rule(rule: AlertRule, *, by_scene: bool) -> Rule:
    if rule.silent_after is not None:
        return SilenceRule(rule.name, rule.silent_after, rule.streams)
    of = rule.of or rule.frames
    clear_frames = rule.clear_frames or of
    return LabelRule(
        rule.name, frozenset(rule.labels), rule.confidence, rule.frames, of, clear_frames, rule.streams, by_scene
    )


def scene_digest(settings: SceneSettings) -> str:
    """Return a hash of what `scene_label` depends on, 12 hexadecimal digits; `beside` and `served` have the same."""
    rules = [[rule.streams, sorted(rule.classes), sorted(rule.exclude)] for rule in settings.shortlists]
    return digest_of([str(_SCENE_RECIPE), str(settings.has_prior), str(settings.smooths), json.dumps(rules)])


def shortlists(settings: SceneSettings, classes: Sequence[str]) -> Shortlists:
    """Return the shortlists over these classes.

    Raises:
        SettingsError: a name is none of the classes, or fewer than two classes are left.
    """
    places = {name: index for index, name in enumerate(classes)}
    unknown, few, rules = dict[str, str](), list[str](), list[tuple[str, Shortlist | None]]()
    for rule in settings.shortlists:
        kept = {*(rule.classes or classes)}.difference(rule.exclude)
        strange = [name for name in (*rule.classes, *rule.exclude) if name not in places]
        unknown.update((name, rule.streams) for name in strange if name not in unknown)
        if len(kept) < 2:
            few.append(f"shortlist of {rule.streams!r}: expected two or more classes to be left, got {len(kept)}")
        if not strange:
            is_all = len(kept) == len(classes)
            rules.append((rule.streams, None if is_all else Shortlist.of([places[name] for name in kept], classes)))
    shown = [*unknown.items()][:_SHOWN]  # to find the class that was meant takes time
    mistakes = [f"shortlist of {streams!r}: {unknown_classes([name], places)[0]}" for name, streams in shown] + few
    if mistakes:
        more = len(unknown) - len(shown) + max(0, len(few) - _SHOWN)
        text = "; ".join(mistakes[: len(shown) + _SHOWN]) + (f"; and {more} more" if more else "")
        raise SettingsError(f"scene.shortlists: {text}. Correct them, or model.classes")
    return Shortlists(tuple(rules))
