"""Intervals of time: which images of which camera lie in which, what is trained on, and what is tested. Pure.

The protocol is that of StreamTrap (Jeon et al., 2026, arXiv 2603.20509): each camera's images are cut into intervals of
time; for each interval j, a model is trained on the images of the intervals up to j, and tested on those of j + 1.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from adawise.errors import SettingsError
from adawise.text import counted

EXPECTED = "2 to 1000 intervals, or the length of one such as 12h, 30d or 8w"
Train = Literal["all", "camera"]
"""What a model is trained on: the images of all cameras, or those of the camera that it serves alone."""

_MOST = 1000
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_LENGTH = re.compile(r"([0-9]{1,6})([smhdw])")
_LEAST = 2  # images of a class: one to learn from, and one to be held out


@dataclass(frozen=True)
class Cut:
    """A division of time: `count` intervals of equal length, or intervals of `length_us`; one of them is None."""

    count: int | None = None
    length_us: int | None = None

    def edges(self, first_us: int, last_us: int) -> tuple[int, ...]:
        """Return K + 1 ascending times for K intervals, each from its edge up to the next one, without that.

        Raises:
            SettingsError: there are fewer than two intervals, or too many.
        """
        span = last_us - first_us + 1
        count = self.count or -(-span // (self.length_us or span))
        if not 2 <= min(count, span) <= count <= _MOST:
            raise SettingsError(
                f"--intervals: the images are of {span / 1e6:,.0f} s from the first to the last, which makes "
                f"{counted(min(count, span), 'interval')}; expected 2 to {_MOST}. Name another number or length."
            )
        if self.length_us is not None:
            return tuple(first_us + k * self.length_us for k in range(count + 1))
        return tuple(first_us + k * span // count for k in range(count + 1))


def parse_intervals(text: str) -> Cut:
    """Parse a number of intervals, or the length of one.

    Raises:
        ValueError: it is neither.
    """
    if text.isdecimal() and 2 <= int(text[:5]) <= _MOST:
        return Cut(count=int(text))
    length = _LENGTH.fullmatch(text)
    if length is None or not int(length[1]):
        raise ValueError(f"it is not {EXPECTED}")
    return Cut(length_us=int(length[1]) * _SECONDS[length[2]] * 1_000_000)


@dataclass(frozen=True, eq=False)
class CameraTimes:
    """The images of each camera in each of K intervals.

    Attributes:
        edges_us: K + 1 times in microseconds since the epoch.
        cameras: the cameras with images, sorted.
        rows: image numbers by (camera's index, interval), in the order of time; cells without images are absent.
        without_time: images that were left out, because nothing says when they were taken.
        at_us: when each image was taken, by its number, microseconds since the epoch; without those left out.
    """

    edges_us: tuple[int, ...]
    cameras: tuple[str, ...]
    rows: Mapping[tuple[int, int], tuple[int, ...]]
    without_time: int
    at_us: Mapping[int, int]

    @property
    def intervals(self) -> int:
        """K, the number of intervals."""
        return len(self.edges_us) - 1

    def images(self, interval: int) -> int:
        """Return how many images of all cameras an interval has."""
        return sum(len(rows) for (_, k), rows in self.rows.items() if k == interval)

    def until(self, interval: int, camera: int | None) -> list[int]:
        """Return the images up to an interval and with it, of one camera or of all, in ascending order."""
        among = self.rows.items()
        return sorted(i for (c, k), rows in among if k <= interval and camera in (c, None) for i in rows)

    def trainings(self, train: Train) -> list[PairTraining]:
        """Return the trainings whose models are tested, in the order of time."""
        found = []
        for k in range(1, self.intervals):
            tested = [c for c in range(len(self.cameras)) if (c, k) in self.rows]
            if train == "camera":
                found += [PairTraining(k - 1, c, (c,)) for c in tested]
            elif tested:
                found.append(PairTraining(k - 1, None, tuple(tested)))
        return found


@dataclass(frozen=True)
class PairTraining:
    """A training, and what it is tested on.

    Attributes:
        interval: j, up to which images are trained on; j + 1 is tested.
        camera: the index of the camera whose images are trained on; None for all cameras.
        tested: the indices of the cameras that have images in interval j + 1.
    """

    interval: int
    camera: int | None
    tested: tuple[int, ...]


def timeline(cameras: Sequence[str], at_us: Sequence[int | None], usable: Sequence[int], cut: Cut) -> CameraTimes:
    """Return the images `usable` by camera and interval; equal times are in the order of numbers.

    Args:
        cameras: the camera of each image.
        at_us: when each image was taken, microseconds since the epoch; None if that is not known.
        usable: the numbers of the images to use.
        cut: how time is cut.

    Raises:
        SettingsError: no image has a time, or all have the same.
    """
    timed = sorted((at, i) for i in usable if (at := at_us[i]) is not None)
    if not timed:
        raise SettingsError(
            f"--images: none of {len(usable)} labelled images has a time, neither captured_at nor that of its message. "
            "Record them with times."
        )
    edges = cut.edges(timed[0][0], timed[-1][0])
    names = tuple(sorted({cameras[i] for _, i in timed}))
    index = {name: c for c, name in enumerate(names)}
    rows: dict[tuple[int, int], list[int]] = {}
    for at, i in timed:
        rows.setdefault((index[cameras[i]], bisect_right(edges, at) - 1), []).append(i)
    by_place = {place: tuple(own) for place, own in rows.items()}
    return CameraTimes(edges, names, by_place, len(usable) - len(timed), {i: at for at, i in timed})


def trainable(rows: Sequence[int], labels: Sequence[str]) -> list[int]:
    """Return the images that a model can be trained on; none if they are of fewer than two classes.

    A class with a single image is left out, because no image of it could be held out.
    """
    counts = Counter(labels[i] for i in rows)
    kept = {label for label, count in counts.items() if count >= _LEAST}
    return [i for i in rows if labels[i] in kept] if len(kept) > 1 else []
