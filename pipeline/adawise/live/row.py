"""What the live page shows: a row a camera, and what stands above the rows. Whoever has such rows can have the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

STEP_S = 5
"""Seconds of a point of `CameraRow.alphas`."""

STEPS = 120
"""Points at most: ten minutes."""


class CameraState(StrEnum):
    """How a camera is, worst first: the one scale of severity. The values are stable: JSON and metrics have them."""

    FAILING = "failing"  # what it sends is not served, or not written; nobody can connect to it
    SILENT = "silent"  # nothing has come of it for longer than is usual
    REJECTED = "rejected"  # a good part of its images cannot be read
    FROZEN = "frozen"  # it sends the same picture again and again (`adawise cameras` alone can tell)
    CHANGED = "changed"  # it is served, at another alpha than before
    OK = "ok"  # it is served
    GONE = "gone"  # nothing has come of it for a day; the fleet's status counts it, a worker forgets it

    @property
    def severity(self) -> int:
        """Place on the scale: 0 is the worst."""
        return _SCALE.index(self)

    @property
    def is_trouble(self) -> bool:
        """True if somebody should see to it."""
        return self.severity <= CameraState.FROZEN.severity


_SCALE = list(CameraState)


@dataclass(frozen=True, slots=True)
class CameraRow:
    """One camera now.

    Shares are in [0, 1], of the last minutes; None where there is nothing to tell. `alphas` are means of steps of
    `STEP_S` seconds, the first at the Unix time `STEP_S * first_step`; None for a step without a batch. `condition` is
    the number of the one that it is in, `returns` how often it came back into it while it was watched. `lag` is in
    messages, of the camera's partition. `agreement` is of the endpoints: images to which both give the same label.
    `seen_s` is the Unix time of its last served or rejected image. `picture` changes with each new thumbnail.
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
    seen_s: float | None = None
    picture: int = 0

    @property
    def key(self) -> str:
        """Unlike that of any other row."""
        return f"{self.partition}/{self.stream_id}"


@dataclass(frozen=True, slots=True)
class LiveView:
    """All that the page shows at a moment, which is the Unix time `now_s`.

    `title` says whose cameras these are, `facts` are pairs of a name and a value, `notices` sentences about what is
    wrong with more than one camera. `over` is the time that shares and rates are of.
    """

    title: str
    now_s: float
    rows: Sequence[CameraRow]
    facts: Sequence[tuple[str, str]] = ()
    notices: Sequence[str] = field(default=())
    over: str = "the last minutes"


class Provider(Protocol):
    """Where the page's rows come from. Called from the HTTP thread about once a second, while somebody looks."""

    def view(self) -> LiveView:
        """What is known now. A row that has not changed may be the same object, which is the quickest to compare."""

    def picture(self, key: str) -> bytes | None:
        """The last image of the row with this key as a JPEG; None if there is none, or none are kept."""


def rates(rows: Sequence[CameraRow]) -> list[tuple[str, str]]:
    """The facts of all rows together: images a second, and FE where one has it."""
    told = [("images/s", f"{sum(row.images_per_s for row in rows):.1f}")]
    passed = sum((row.forward_equivalents or 0.0) * row.images_per_s for row in rows)
    rate = sum(row.images_per_s for row in rows if row.forward_equivalents is not None)
    return [*told, ("FE", f"{passed / rate:.2f}")] if rate else told
