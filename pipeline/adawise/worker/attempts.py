"""What a worker tries again and again, and whether the last try of it failed.

An outage lasts from the first failure until the same thing succeeds. That nothing fails for a while ends no outage: one
try against a broker that is gone may take a minute.
"""

from __future__ import annotations

from adawise.errors import AdawiseError
from adawise.records import TopicPartition
from adawise.worker.events import Observer, RetriesEnded, RetryScheduled

STARTING, READING = "starting", "reading"
RESULTS = "results"


def recovering(tp: TopicPartition) -> str:
    """Name the recovery of a partition, which is tried for each partition by itself."""
    return f"recovering {tp}"


def writing(tp: TopicPartition) -> str:
    """Name the writing of a partition's segments, which is tried for each partition by itself."""
    return f"writing {tp}"


def letters(tp: TopicPartition) -> str:
    """Name the sending of a partition's dead letters, likewise."""
    return f"dead letters of {tp}"


class Attempts:
    """Reports failures to an observer, and the success that ends them; successes without a failure cost nothing.

    Args:
        observer: observes `RetryScheduled` and `RetriesEnded`.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._failing: set[str] = set()

    def failed(self, what: str, error: AdawiseError, wait_s: float) -> None:
        """A try of `what` failed; the next one is made in `wait_s` seconds."""
        self._failing.add(what)
        self._observer.observe(RetryScheduled(what, error, wait_s))

    def ended(self, what: str) -> None:
        """A try of `what` succeeded, or none is to be made any more."""
        if what in self._failing:
            self._failing.remove(what)
            self._observer.observe(RetriesEnded(what))
