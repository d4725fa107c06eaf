"""Settings -> the shortlists of cameras."""

from __future__ import annotations

from collections.abc import Sequence

from adawise.adapt.shortlist import Shortlist, Shortlists
from adawise.errors import SettingsError
from adawise.settings.scene import SceneSettings
from adawise.text import unknown_classes


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
