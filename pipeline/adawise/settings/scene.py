"""The settings of scenes: facts about what cameras can show, which their images alone do not say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from typing_extensions import override

from adawise.settings.group import Group, Text, tables

MOST_SHORTLISTS = 10_000
SHORTLISTS_EXPECTED = (
    "a list of shortlists, each with streams and classes or exclude: [[scene.shortlists]] in the file, elsewhere JSON "
    'as [{"streams": "yard-*", "classes": ["car", "lorry"]}]'
)


class ShortlistSettings(Group):
    """The classes that some cameras can show: those of `classes`, or all but those of `exclude`.

    With neither, these cameras may show every class, whatever an earlier shortlist says.
    """

    streams: Text
    classes: tuple[Text, ...] = ()
    exclude: tuple[Text, ...] = ()

    @override
    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield the mistakes in a shortlist. See `Group`."""
        if self.classes and self.exclude:
            yield "exclude", "expected either classes or exclude; give one of them"
        given = self.model_fields_set & {"classes", "exclude"}
        if len(given) == 1 and not (self.classes or self.exclude):  # `config show --json` writes both
            yield given.pop(), "it is an empty list; leave it out, if every class is meant"
        if not self.streams.isprintable():
            yield "streams", "expected printable text"
        if len({*self.classes}) == 1:
            yield "classes", "expected two or more classes: with one there is nothing to distinguish"


def _shortlists(value: object) -> tuple[ShortlistSettings, ...]:
    return tables(value, ShortlistSettings, "shortlist", MOST_SHORTLISTS)


class SceneSettings(Group):
    """The settings `[scene]`: what cameras can show."""

    shortlists: Annotated[tuple[ShortlistSettings, ...], BeforeValidator(_shortlists)] = Field(
        default=(),
        description="classes that a camera can show, by patterns of stream ids; the last one that matches holds, and "
        "a camera without one may show every class (docs/guide/scene.md)",
        json_schema_extra={"expected": SHORTLISTS_EXPECTED, "metavar": "JSON"},
    )
    prior: Literal["off", "beside", "served"] = Field(
        default="off",
        description="beside: learn from the predictions which classes each camera shows, and write the label corrected "
        "by that beside the served one, as scene_label; served: scene_label is also the label of results and alerts, "
        "which needs a card whose labels prove it (docs/guide/scene.md)",
    )
    smoothing: Literal["off", "beside", "served"] = Field(
        default="off",
        description="beside: correct scene_label by the frames before and after too, where the order of a camera's "
        "frames says something; needs scene.prior, with the same value (docs/guide/scene.md)",
    )

    @property
    def has_prior(self) -> bool:
        """True if a class prior corrects `scene_label`."""
        return self.prior != "off"

    @property
    def smooths(self) -> bool:
        """True if neighbouring frames correct `scene_label` too."""
        return self.smoothing != "off"

    @property
    def is_served(self) -> bool:
        """True if `scene_label` is the label of results and alerts."""
        return self.prior == "served"

    @override
    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield the mistakes between the settings. See `Group`."""
        if self.smooths and not self.has_prior:
            yield "smoothing", f"it corrects what the class prior corrects; set scene.prior to {self.smoothing} too"
        elif self.smooths and self.smoothing != self.prior:
            yield (
                "smoothing",
                f"there is one scene_label, which both correct: set it to {self.prior} as scene.prior, or to off",
            )
