"""The life of a worker: start it, let it classify the topic, and end it when it is stopped."""

from __future__ import annotations

import structlog

from adawise.app.http import worker_port
from adawise.app.signals import stop_signals
from adawise.app.worker import start_worker
from adawise.settings import Settings
from adawise.store.store import Failpoint
from adawise.worker.events import Observer
from adawise.worker.observer import LogObserver

_AWAITED = (
    "this can take kafka.session_timeout_ms ({:g} s), on the embedded broker a few seconds; a worker beyond the number "
    "of partitions waits in reserve"
)


def run_worker(settings: Settings, *, failpoint: Failpoint = lambda _: None, observer: Observer | None = None) -> int:
    """Classify the topic until SIGTERM or SIGINT; then flush, commit and return 0.

    While a broker or a store does not answer, at the start or later, the worker waits for it.
    """
    with stop_signals() as should_stop, worker_port(settings) as port:
        log = structlog.get_logger("worker")
        try:
            with should_stop.interrupts():
                # The pair that is returned too is not kept, so that its memory is freed once another one serves.
                worker = start_worker(settings, port, observer or LogObserver(), should_stop, failpoint=failpoint)[0]
        except KeyboardInterrupt:
            log.info("worker_stopped", note="it was asked to stop before its first step; nothing was read")
            return 0
        log.info("worker_started", topic=settings.kafka.topic, group=settings.kafka.group, root=settings.sink.root)
        log.info("partitions_awaited", note=_AWAITED.format(settings.kafka.session_timeout_ms / 1000))
        worker.run()
        log.info("worker_stopped")
    return 0
