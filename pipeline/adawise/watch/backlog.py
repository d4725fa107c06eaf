"""The lag of a partition: one definition for the metrics, the page, the probes and `adawise status`. Pure functions.

A message counts as waiting until its row is durable, whether it is at the broker, in memory or in an incomplete batch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from adawise.text import as_duration

BEHIND_S = 60.0
"""The age of the oldest waiting message, in seconds, above which a partition is behind."""

RATE_S = 300.0
"""The length of the window that rates are computed over, in seconds."""

_LEAST_S = 10.0  # over a shorter time, a rate reflects the flushes more than the load
_SPACING_S = 5.0  # between two remembered counts


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """The lag of one partition in messages, and how it changes. A field is None if its value is not known.

    Attributes:
        lag: messages without a durable row.
        age_s: age of the oldest waiting message, by its Kafka timestamp; 0 if none waits.
        arriving_per_s: messages per second that were appended to the log, over the last `RATE_S` or since the
            partition is watched, if that is shorter.
        served_per_s: messages per second that got durable rows, over the same time.
    """

    lag: int | None
    age_s: float | None
    arriving_per_s: float | None = None
    served_per_s: float | None = None

    @property
    def is_behind(self) -> bool:
        """True if a message has waited longer than `BEHIND_S`, which is more than batches and segments take."""
        return bool(self.lag) and self.age_s is not None and self.age_s > BEHIND_S

    @property
    def catch_up_s(self) -> float | None:
        """Seconds until no message waits, at the present rates.

        0 if the partition is not behind, infinite if it cannot catch up, None if the lag or a rate is not known.
        """
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
    """The arrival rate and the service rate of one partition over the last `RATE_S`.

    Every few seconds it remembers how many messages were durable and how many had arrived.
    """

    _marks: deque[tuple[float, int, int]] = field(default_factory=deque)  # (time, durable, arrived)

    def add(self, now_s: float, durable: int, lag: int | None) -> tuple[float | None, float | None]:
        """Add the counts of this moment, and return messages (arriving, served) per second.

        Both are None if the lag is not known, or while the observed time is shorter than ten seconds.
        """
        if lag is None:
            return None, None
        marks = self._marks
        if not marks or now_s - marks[-1][0] >= _SPACING_S:
            marks.append((now_s, durable, durable + lag))
        while len(marks) > 1 and marks[1][0] <= now_s - RATE_S:
            marks.popleft()
        began_s, durable_then, came_then = marks[0]
        over_s = now_s - began_s
        if over_s < _LEAST_S:
            return None, None
        return max(0, durable + lag - came_then) / over_s, max(0, durable - durable_then) / over_s


def backlog_facts(backlogs: Sequence[PartitionLag]) -> list[tuple[str, str]]:
    """Return names and values that summarize all partitions for a page, without the values that are not known."""
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
    """Format the time until a partition has caught up."""
    return "never" if math.isinf(seconds) else as_duration(seconds)
