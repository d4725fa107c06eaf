"""When a frame was taken: by the stream's wall clock where it has one, by its own pace, or when it came. Pure.

Times are microseconds since the epoch. RTSP cameras tell their wall clock now and then (RTCP sender reports); from the
first report on each frame has a time by it. Before that, and for streams without, a frame's place in the stream is tied
to when it came: to the smallest delay that was seen, for the first frames come in a bunch. That tie gives way slowly,
as the camera's quartz is not ours, and at once where the stream jumps.
"""

from __future__ import annotations

from enum import StrEnum

WRONG_US = 60_000_000
"""A wall clock that is further from ours is not believed, for batches and the broker go by it. Two times of one camera
that are further apart, in the wrong order, are of a clock that was set."""

_JUMP_US = 5_000_000
_LEAK = 1e-3  # of the time that passes: ten times what a bad quartz drifts


class Clock(StrEnum):
    """Which clock a frame's time is of. The values are stable: the header `meta-clock` has them."""

    WALL = "wall"  # the camera's own wall clock
    STREAM = "stream"  # its place in the stream, tied to our clock
    ARRIVAL = "arrival"  # when it came


class FrameClock:
    """The clock of one connection.

    Args:
        by: `stream` or `arrival`.
    """

    def __init__(self, by: str) -> None:
        self._by_stream = by == "stream"
        self._tie_us: float | None = None  # arrival less place, the smallest
        self._tied_us = 0
        self._wall_us: int | None = None  # wall clock less place
        self.off_us = 0  # by how much a wall clock that is not believed is off

    def came(self, place_us: int | None, arrived_us: int, wall_us: int | None) -> None:
        """Something came: its place in the stream, and the wall clock at that place, where they are told."""
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
        """When the frame at this place was taken, and by which clock."""
        if not self._by_stream or place_us is None or self._tie_us is None:
            return arrived_us, Clock.ARRIVAL
        if self._wall_us is not None:
            return place_us + self._wall_us, Clock.WALL
        return min(arrived_us, place_us + round(self._tie_us)), Clock.STREAM


class FramePace:
    """Which frames to take of those that come, by times in seconds that mostly grow.

    Args:
        rate: a second at most; None: all.
    """

    def __init__(self, rate: float | None) -> None:
        self._period_s = 1.0 / rate if rate else 0.0
        self._next_s = -float("inf")

    def due(self, at_s: float) -> bool:
        """Whether to take the frame of this time."""
        if self._period_s and self._next_s - 2 * self._period_s < at_s < self._next_s - 1e-4:
            return False
        kept = self._next_s + self._period_s  # so that a rate is kept which does not divide that of the stream
        self._next_s = kept if at_s < kept <= at_s + self._period_s else at_s + self._period_s
        return True
