"""The operations that a worker retries, and which of them failed at the last try.

An outage lasts from the first failure of an operation until the same operation succeeds. A while without failures does
not end an outage: one try against a broker that is gone may take a minute.
"""

from __future__ import annotations

from collections.abc import Callable

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


def dead_lettering(tp: TopicPartition) -> str:
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


_FIRST_S, _LONGEST_S = 1.0, 30.0


class Backoff:
    """The waits of one operation that can fail. Time is an argument.

    Args:
        spread: returns the factor of a wait, in (0, 1], so that processes that failed together do not retry together.
    """

    def __init__(self, spread: Callable[[], float] = lambda: 1.0) -> None:
        self.again_s = 0.0
        self._wait_s, self._spread = _FIRST_S, spread

    def due(self, now_s: float) -> bool:
        """Return True if the operation may be tried at `now_s`, by the same clock as for `failed`."""
        return now_s >= self.again_s

    def failed(self, now_s: float) -> float:
        """Note a failure at `now_s`, and return the seconds until the operation is due again."""
        wait_s = self._wait_s * self._spread()
        self.again_s, self._wait_s = now_s + wait_s, min(2.0 * self._wait_s, _LONGEST_S)
        return wait_s

    def succeeded(self) -> None:
        """Note a success, so that the next failure counts as the first."""
        self.again_s, self._wait_s = 0.0, _FIRST_S
