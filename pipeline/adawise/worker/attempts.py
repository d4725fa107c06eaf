"""The operations that a worker retries, and which of them failed at the last try.

An outage lasts from the first failure of an operation until the same operation succeeds. A while without failures does
not end an outage: one try against a broker that is gone may take a minute.
"""

from __future__ import annotations

from adawise.errors import AdawiseError
from adawise.records import TopicPartition
from adawise.worker.events import Observer, RetriesEnded, RetryScheduled

STARTING, READING = "starting", "reading"
RESULTS = "results"


def recovering(tp: TopicPartition) -> str:
    """Return the name of a partition's recovery, which is retried for each partition separately."""
    return f"recovering {tp}"


def writing(tp: TopicPartition) -> str:
    """Return the name of the writing of a partition's segments, which is retried for each partition separately."""
    return f"writing {tp}"


def letters(tp: TopicPartition) -> str:
    """Return the name of the sending of a partition's dead letters, which is retried for each partition separately."""
    return f"dead letters of {tp}"


class Attempts:
    """Reports failures to an observer, and the success that ends them. A success without a failure is not reported.

    Args:
        observer: receives `RetryScheduled` and `RetriesEnded`.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._failing: set[str] = set()

    def failed(self, what: str, error: AdawiseError, wait_s: float) -> None:
        """Report that a try of `what` failed, and that the next one is made in `wait_s` seconds."""
        self._failing.add(what)
        self._observer.observe(RetryScheduled(what, error, wait_s))

    def ended(self, what: str) -> None:
        """Report that a try of `what` succeeded or that no more are made, if the last one failed."""
        if what in self._failing:
            self._failing.remove(what)
            self._observer.observe(RetriesEnded(what))
