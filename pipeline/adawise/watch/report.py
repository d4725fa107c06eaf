"""The health report of a worker with a problem, written to its root (`_workers`), where `adawise status` reads it.

It has the answer of `/readyz` and what the worker waits for. No document is written for a worker without problems. If
the store has no room even for this file, the report is missing; `adawise status` then goes by the root's free space.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from adawise.watch.health import PARTIES, Health
from adawise.worker.events import Event, PhaseEntered, RetriesEnded, RetryScheduled, Stepped, WorkerProgress

_STARTS_S = 60.0  # a worker that is not ready for less than this is starting


class HealthReport:
    """An observer that keeps the worker's health in the worker's own thread, and describes its problems.

    Args:
        clock: seconds since the epoch that never go back.
        is_member: returns True if the worker is in its consumer group.
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
        """Return the worker's problems as a JSON object; empty if it has none. Only the worker's thread may call it."""
        health, now_s = self._health, self._clock()
        if self._progress is not None:
            with suppress(Exception):  # nothing that cannot be found out ends the worker; the last known progress stays
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
