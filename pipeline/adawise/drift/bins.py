"""How wide a bin is: as wide as a clock's face has names for, and so that a span has no more of them than asked."""

from __future__ import annotations

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US

_WIDTHS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


def bin_width_us(span_us: int, most: int) -> int:
    """The narrowest usual width by which [0, span_us] has at most `most` bins (>= 1); whole days beyond one day."""
    least_us = -(-max(span_us, 1) // most)
    for width_s in _WIDTHS_S:
        if width_s * SECOND_US >= least_us:
            return width_s * SECOND_US
    return -(-least_us // DAY_US) * DAY_US
