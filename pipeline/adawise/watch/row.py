"""The data of the live page: one row per camera, and the facts above the rows. Any `Provider` of rows can be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

STEP_S = 5
"""The length in seconds of one step, which is one point of `CameraRow.alphas`."""

STEPS = 120
"""The maximum number of points: ten minutes."""


class CameraState(StrEnum):
    """The states of a camera, worst first: the one scale of severity. The values are stable, in JSON and metrics."""

    FAILING = "failing"  # its images are not served or not written, or its stream cannot be connected to
    SILENT = "silent"  # no image has come for longer than is usual
    REJECTED = "rejected"  # a considerable share of its images is rejected
    FROZEN = "frozen"  # it sends the same picture again and again (only `adawise cameras` detects this)
    CHANGED = "changed"  # it is served, and its alpha changed or it began to learn anew
    OK = "ok"  # it is served
    GONE = "gone"  # no image has come for a day; the fleet's status counts it, a worker forgets it

    @property
    def severity(self) -> int:
        """The place on the scale; 0 is the worst."""
        return _SCALE.index(self)

    @property
    def is_trouble(self) -> bool:
        """True if the camera needs the operator's attention."""
        return self.severity <= CameraState.FROZEN.severity


_SCALE = list(CameraState)


@dataclass(frozen=True, slots=True)
class CameraRow:
    """One camera at a moment. A field is None if its value is not known.

    Shares are in [0, 1], over the last minutes.

    Attributes:
        alphas: mean alpha of steps of `STEP_S` seconds, the first at the Unix time `STEP_S * first_step`; None for a
            step without a batch.
        condition: number of the condition that the camera is in.
        returns: how often the camera came back into this condition while it was watched.
        agreement: share of images to which both endpoints give the same label.
        lag: messages of the camera's partition that wait.
        last_seen_s: Unix time of its last served or rejected image.
        picture: a number that changes with each new thumbnail.
    """

    stream_id: str
    partition: str
    state: CameraState
    why: str = ""  # a sentence for people; empty if it is ok
    alpha: float | None = None
    condition: int | None = None
    returns: int = 0
    first_step: int = 0
    alphas: tuple[float | None, ...] = ()
    classes: tuple[tuple[str, float], ...] = ()  # best first
    images_per_s: float = 0.0
    images: int = 0
    rejected: int = 0
    forward_equivalents: float | None = None
    agreement: float | None = None
    confidence: float | None = None
    lag: int | None = None
    last_seen_s: float | None = None
    picture: int = 0

    @property
    def key(self) -> str:
        """The unique key of the row."""
        return f"{self.partition}/{self.stream_id}"


@dataclass(frozen=True, slots=True)
class LiveView:
    """The content of the page at one moment.

    Attributes:
        title: name of the worker or the fleet.
        now_s: Unix time of the moment.
        rows: a row per camera.
        facts: pairs of a name and a value.
        notices: sentences about problems that concern more than one camera.
        over: time over which shares and rates are computed, in words.
    """

    title: str
    now_s: float
    rows: Sequence[CameraRow]
    facts: Sequence[tuple[str, str]] = ()
    notices: Sequence[str] = field(default=())
    over: str = "the last minutes"


class Provider(Protocol):
    """The source of the page's rows. The HTTP thread calls it about once a second while a browser shows the page."""

    def view(self) -> LiveView:
        """Return the page's present content. A row that has not changed may be the same object: it compares fastest."""

    def picture(self, key: str) -> bytes | None:
        """Return the last image of the row with this key as a JPEG; None if there is none, or images are not kept."""


def rates(rows: Sequence[CameraRow]) -> list[tuple[str, str]]:
    """Return the facts of all rows together: images per second and, if known for any row, FE (forward equivalents)."""
    totals = [("images/s", f"{sum(row.images_per_s for row in rows):.1f}")]
    passed = sum((row.forward_equivalents or 0.0) * row.images_per_s for row in rows)
    rate = sum(row.images_per_s for row in rows if row.forward_equivalents is not None)
    return [*totals, ("forwards per image (FE)", f"{passed / rate:.2f}")] if rate else totals
