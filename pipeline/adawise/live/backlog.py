"""How far behind a partition is: one definition for the metrics, the page, the probes and `adawise status`. Pure.

A message waits until its row is durable, wherever it is: at the broker, in memory, or in a batch that is not complete.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from adawise.text import as_duration

BEHIND_S = 60.0
"""A partition is behind if its oldest waiting message is older than this."""

RATE_S = 300.0
"""Seconds that the rates are taken over."""

_LEAST_S = 10.0  # a rate over less would say more of the flushes than of the load
_APART_S = 5.0


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """What waits of one partition, in messages, and how it changes. None is what is not known.

    `age_s` is that of the oldest waiting message, by its Kafka timestamp. `arriving_per_s` came to the log and
    `served_per_s` got durable rows, over the last `RATE_S` or since it is watched.
    """

    lag: int | None
    age_s: float | None
    arriving_per_s: float | None = None
    served_per_s: float | None = None

    @property
    def is_behind(self) -> bool:
        """True if something waits for longer than batches and segments take."""
        return bool(self.lag) and self.age_s is not None and self.age_s > BEHIND_S

    @property
    def catch_up_s(self) -> float | None:
        """Seconds until nothing waits any more at these rates; 0 if it is not behind, infinite if it never will be."""
        if self.lag is None or self.age_s is None:
            return None
        if not self.is_behind:
            return 0.0
        if self.arriving_per_s is None or self.served_per_s is None:
            return None
        gain_per_s = self.served_per_s - self.arriving_per_s
        return self.lag / gain_per_s if gain_per_s > 0.0 else math.inf


@dataclass(slots=True)
class Rates:
    """How many messages of one partition came and were served, over the last `RATE_S`.

    It remembers the counts of a moment every few seconds: those that are durable, and all that came.
    """

    _marks: deque[tuple[float, int, int]] = field(default_factory=deque)

    def add(self, now_s: float, durable: int, lag: int | None) -> tuple[float | None, float | None]:
        """(arriving, served) a second, up to this moment; None until there is enough to tell."""
        if lag is None:
            return None, None
        marks = self._marks
        if not marks or now_s - marks[-1][0] >= _APART_S:
            marks.append((now_s, durable, durable + lag))
        while len(marks) > 1 and marks[1][0] <= now_s - RATE_S:
            marks.popleft()
        began_s, durable_then, came_then = marks[0]
        over_s = now_s - began_s
        if over_s < _LEAST_S:
            return None, None
        return max(0, durable + lag - came_then) / over_s, max(0, durable - durable_then) / over_s


def backlog_facts(backlogs: Sequence[PartitionLag]) -> list[tuple[str, str]]:
    """What a page says of all partitions together; nothing of what is not known of any."""
    lags = [each.lag for each in backlogs if each.lag is not None]
    ages = [each.age_s for each in backlogs if each.age_s is not None and each.lag]
    arriving = [each.arriving_per_s for each in backlogs if each.arriving_per_s is not None]
    served = [each.served_per_s for each in backlogs if each.served_per_s is not None]
    until = [each.catch_up_s for each in backlogs if each.catch_up_s]
    return [
        *([("lag", str(sum(lags)))] if lags else []),
        *([("oldest", as_duration(max(ages)))] if ages else []),
        *([("arriving/s", f"{sum(arriving):.1f}")] if arriving else []),
        *([("served/s", f"{sum(served):.1f}")] if served else []),
        *([("caught up in", caught_up_in(max(until)))] if until else []),
    ]


def caught_up_in(seconds: float) -> str:
    """How long it takes to catch up, in words."""
    return "never" if math.isinf(seconds) else as_duration(seconds)
