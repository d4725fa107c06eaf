"""What a worker that is not well says of itself in its root, where `adawise status` finds it (`_workers`).

The answer of `/readyz`, and what the worker waits for. One that is well says nothing: no document is written for it.
Where the store has no room for the smallest file, nothing can be said there either; then the free space of the root
says it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from adawise.errors import RetryableError
from adawise.live.health import PARTIES, Health
from adawise.worker.events import Event, PhaseEntered, RetriesEnded, RetryScheduled, Stepped, WorkerProgress

_STARTS_S = 60.0  # a worker that is not ready for less than this is starting


class HealthReport:
    """Keeps the worker's health in the worker's own thread, and describes it when it is bad.

    Args:
        clock: seconds since the epoch that never go back.
        is_member: whether the worker is in its group.
    """

    def __init__(self, clock: Callable[[], float], is_member: Callable[[], bool]) -> None:
        self._clock, self._is_member = clock, is_member
        self._health = Health(clock(), math.inf)
        self._progress: Callable[[], WorkerProgress] | None = None

    def observe(self, event: Event) -> None:
        """See `Observer`."""
        match event:
            case PhaseEntered():
                self._health.enter(event.phase, self._clock())
            case Stepped():
                self._progress = event.progress
            case RetryScheduled():
                self._health.failed(event.what, event.error, self._clock())
            case RetriesEnded():
                self._health.ended(event.what)
            case _:
                pass

    def describe(self) -> dict[str, Any]:
        """Return what is wrong with the worker, as JSON has it; empty if it is well. For the worker's thread alone."""
        health, now_s = self._health, self._clock()
        if self._progress is not None:
            with suppress(RetryableError):  # nobody answers; what is known is that of a moment ago
                health.progressed(self._progress(), is_member=self._is_member())
        answer = health.ready(now_s)
        outages = {party: outage for party in PARTIES if (outage := health.outage(party)) is not None}
        progress = health.progress
        is_held = progress is not None and (
            progress.paused or any(partition.stands for partition in progress.partitions.values())
        )
        is_unready = not answer.ok and answer.phase_s > _STARTS_S
        if not (outages or is_held or is_unready):
            return {}
        reasons = health.amiss(now_s, in_full=True)
        if not answer.ok:
            reasons = [*(reason for reason in answer.reasons if reason not in health.amiss(now_s)), *reasons]
        return {
            "status": answer.status,
            "reasons": reasons,
            "waits_for": {
                party: {"seconds": round(now_s - outage.since_s, 1), "full": outage.is_full}
                for party, outage in outages.items()
            },
        }
