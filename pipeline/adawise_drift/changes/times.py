"""Microseconds since the epoch (UTC) as moments, and widths of bins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_WIDTHS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


def utc(us: int) -> datetime:
    """Return the moment, in UTC."""
    return EPOCH + timedelta(microseconds=us)


def moment(us: int) -> str:
    """Return a moment in words: 2026-11-25 08:00."""
    return utc(us).strftime("%Y-%m-%d %H:%M")


def bin_width_us(span_us: int, most: int) -> int:
    """Return the narrowest usual width by which [0, span_us] has at most `most` bins (>= 1).

    A clock's face has names for usual widths; beyond one day they are whole days.
    """
    least_us = -(-max(span_us, 1) // most)
    for width_s in _WIDTHS_S:
        if width_s * SECOND_US >= least_us:
            return width_s * SECOND_US
    return -(-least_us // DAY_US) * DAY_US
