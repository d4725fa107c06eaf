"""Moments as microseconds since the epoch (UTC), widths of bins, and the time zone of each camera.

Days, nights and hours of a daily cycle are counted by the clocks of a camera's zone, so that a shop that opens at nine
does so on the day after summer time begins, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

if TYPE_CHECKING:  # with NumPy, which the check of a time zone's name does without
    from adawise.labels.arrays import Integers

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_NEAREST = 3
_WIDTHS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


def utc(us: int) -> datetime:
    """Return the moment, in UTC."""
    return EPOCH + timedelta(microseconds=us)


def moment(us: int, zone: tzinfo = UTC) -> str:
    """Return a moment in words, by the clocks of a zone: 2026-11-25 08:00."""
    return utc(us).astimezone(zone).strftime("%Y-%m-%d %H:%M")


def zone_name(us: int, zone: tzinfo) -> str:
    """Return what a zone is called at a moment: UTC, CEST, or UTC+03 where it has no abbreviation."""
    name = utc(us).astimezone(zone).tzname() or "UTC"
    return f"UTC{name}" if name[0] in "+-" else name


def shift_us(us: int, zone: tzinfo) -> int:
    """Return by how much the clocks of a zone are ahead of UTC at a moment, in microseconds."""
    return _offset(zone, us)


def bin_width_us(span_us: int, most: int) -> int:
    """Return the narrowest usual width by which [0, span_us] has at most `most` bins (>= 1).

    A clock's face has names for usual widths; beyond one day they are whole days.
    """
    least_us = -(-max(span_us, 1) // most)
    for width_s in _WIDTHS_S:
        if width_s * SECOND_US >= least_us:
            return width_s * SECOND_US
    return -(-least_us // DAY_US) * DAY_US


@dataclass(frozen=True, slots=True)
class Clocks:
    """The zone of each camera: that of the first pattern (globs) that its name fits, else `zone`."""

    zone: tzinfo = UTC
    of: Mapping[str, tzinfo] = field(default_factory=lambda: MappingProxyType({}))

    def at(self, stream_id: str) -> tzinfo:
        """Return the zone of one camera."""
        return next((zone for pattern, zone in self.of.items() if fnmatchcase(stream_id, pattern)), self.zone)

    def unused(self, stream_ids: Collection[str]) -> list[str]:
        """Return the patterns that none of these names fits."""
        return [pattern for pattern in self.of if not any(fnmatchcase(name, pattern) for name in stream_ids)]


UTC_CLOCKS = Clocks()


def parse_clocks(parts: Sequence[str]) -> Clocks:
    """Return the clocks: `Europe/Berlin` for all cameras, `tokyo-*=Asia/Tokyo` for some, UTC for the others.

    Raises ValueError for a zone that is not known, with the nearest names, and for a second one for all.
    """
    named = [part.rpartition("=") for part in parts]
    everywhere = [name for pattern, sign, name in named if not sign]
    if len(everywhere) > 1:
        raise ValueError(
            f"expected one zone for all cameras and STREAM=ZONE for others, got {' and '.join(everywhere)}"
        )
    if any(sign and not pattern for pattern, sign, _ in named):
        raise ValueError("expected STREAM=ZONE, got no name of a camera before =")
    zones = {pattern: time_zone(name) for pattern, _, name in named}
    return Clocks(zones.pop("", UTC), zones)


def time_zone(name: str) -> ZoneInfo:
    """Return the zone of a name. Raises ValueError for a name that is not known, with the nearest ones."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        known = {zone.lower().rpartition("/")[2]: zone for zone in sorted(available_timezones(), reverse=True)}
        known |= {zone.lower(): zone for zone in available_timezones()}
        wanted = name.lower().replace(" ", "_")
        places = get_close_matches(wanted.rpartition("/")[2], known, _NEAREST, 0.75)
        near = dict.fromkeys(known[at] for at in (*get_close_matches(wanted, known, _NEAREST, 0.75), *places))
        nearest = f"; near it are {', '.join(list(near)[:_NEAREST])}" if near else ""
        if not known:
            nearest = "; this machine has no time zones: install the package tzdata with pip or the system"
        raise ValueError(f"expected the name of a time zone such as Europe/Zurich, got {name!r}{nearest}") from error


def local_us(times_us: Integers, zone: tzinfo) -> Integers:
    """Return what the clocks show, as microseconds since 1970 began there.

    Where they are put back an hour is there twice.

    Args:
        times_us: `[n]`, not decreasing.
        zone: of the clocks.
    """
    if zone is UTC or not len(times_us):
        return times_us
    changes, offsets = _offsets(zone, int(times_us[0] // DAY_US), int(times_us[-1] // DAY_US) + 1)
    shown: Integers = times_us + offsets[changes.searchsorted(times_us, side="right")]
    return shown


def utc_us(shown_us: int, zone: tzinfo) -> int:
    """Return when the clocks show that, the first time if they do so twice."""
    if zone is UTC:
        return shown_us
    return (utc(shown_us).replace(tzinfo=zone) - EPOCH) // timedelta(microseconds=1)


@lru_cache(maxsize=1024)
def _offsets(zone: tzinfo, first_day: int, last_day: int) -> tuple[Integers, Integers]:
    """Return when the clocks of a zone are put forward or back, and their offsets from UTC.

    The times are `[k]`, the offsets until, between and after them `[k + 1]`, both in microseconds. No zone changes
    twice within a day.
    """
    import numpy as np

    changes, offsets = [], [_offset(zone, first_day * DAY_US)]
    for day in range(first_day, last_day):
        low, high = day * DAY_US, (day + 1) * DAY_US
        after = _offset(zone, high)
        if after == offsets[-1]:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _offset(zone, middle) == after else (middle, high)
        changes.append(high)
        offsets.append(after)
    return np.array(changes, np.int64), np.array(offsets, np.int64)


def _offset(zone: tzinfo, at_us: int) -> int:
    offset = utc(at_us).astimezone(zone).utcoffset()
    assert offset is not None  # the moment is aware
    return offset // timedelta(microseconds=1)
