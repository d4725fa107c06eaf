"""The time at which a frame was taken, by the stream's wall clock if it has one, by its pace, or by arrival. Pure."""

from __future__ import annotations

from enum import StrEnum

WRONG_US = 60_000_000
"""The largest plausible difference of two clocks.

A wall clock that is further from ours is not used, since batches and the broker go by it. Where a camera's time steps
back by more than this, its clock was set.
"""

_JUMP_US = 5_000_000
_LEAK = 1e-3  # of the time that passes: ten times the drift of a bad quartz


class Clock(StrEnum):
    """The clock of a frame's time. The values are stable: they are stored in the header `meta-clock`."""

    WALL = "wall"  # the camera's own wall clock
    STREAM = "stream"  # its place in the stream, tied to our clock
    ARRIVAL = "arrival"  # the time of its arrival


class FrameClock:
    """The clock of one connection.

    Args:
        by: `stream`, to use the stream's times where they are plausible, or `arrival`.
    """

    def __init__(self, by: str) -> None:
        self._by_stream = by == "stream"
        self._tie_us: float | None = None  # the smallest difference of arrival and place
        self._tied_us = 0
        self._wall_us: int | None = None  # difference of wall clock and place
        self.off_us = 0  # how far a wall clock that is not used is off; 0 otherwise

    def came(self, place_us: int | None, arrived_us: int, wall_us: int | None) -> None:
        """Note an arrival, with its place in the stream, and the wall clock at that place, where they are known."""
        if place_us is None:
            return
        delay_us = arrived_us - place_us
        if self._tie_us is None or abs(delay_us - self._tie_us) > _JUMP_US:
            self._tie_us = delay_us
        else:
            self._tie_us = min(float(delay_us), self._tie_us + _LEAK * max(0, arrived_us - self._tied_us))
        self._tied_us = arrived_us
        if wall_us is not None:
            off_us = wall_us - arrived_us
            self.off_us = off_us if abs(off_us) > WRONG_US else 0
            self._wall_us = None if self.off_us else wall_us - place_us

    def time(self, place_us: int | None, arrived_us: int) -> tuple[int, Clock]:
        """Return when the frame at this place was taken, and by which clock."""
        if not self._by_stream or place_us is None or self._tie_us is None:
            return arrived_us, Clock.ARRIVAL
        if self._wall_us is not None:
            return place_us + self._wall_us, Clock.WALL
        return min(arrived_us, place_us + round(self._tie_us)), Clock.STREAM


class FramePace:
    """A selection of frames that keeps to a rate, by times in seconds that mostly grow.

    Args:
        rate: the most frames a second; None: all.
    """

    def __init__(self, rate: float | None) -> None:
        self._period_s = 1.0 / rate if rate else 0.0
        self._next_s = -float("inf")

    def due(self, at_s: float) -> bool:
        """Return True if the frame of this time is to be taken."""
        if self._period_s and self._next_s - 2 * self._period_s < at_s < self._next_s - 1e-4:
            return False
        kept = self._next_s + self._period_s  # keeps a rate that does not divide the stream's
        self._next_s = kept if at_s < kept <= at_s + self._period_s else at_s + self._period_s
        return True
