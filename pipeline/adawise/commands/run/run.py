"""Settings -> the worker on the topic, until it is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog

from adawise.build.http import WorkerPort, worker_port
from adawise.build.kafka import dead_letters, kafka_source
from adawise.build.model import load_model
from adawise.build.recording import worker_recorder
from adawise.build.retention import housekeeping
from adawise.build.signals import stop_signals
from adawise.build.telemetry import spans
from adawise.build.waiting import patiently
from adawise.build.worker import describe, make_worker
from adawise.settings import Settings
from adawise.store.store import Failpoint, open_store
from adawise.worker.loop import Worker
from adawise.worker.observer import LogObserver, Observer, Observers, Phase

T = TypeVar("T")

_AWAITED = (
    "this can take kafka.session_timeout_ms ({:g} s), on the embedded broker a few seconds; a worker beyond the number "
    "of partitions waits in reserve"
)


def run_worker(settings: Settings, *, failpoint: Failpoint = lambda _: None, observer: Observer | None = None) -> int:
    """Classify the topic until SIGTERM or SIGINT; then flush, commit and return 0.

    A broker or a store that does not answer is waited for, at the start as later.
    """
    with stop_signals() as should_stop, worker_port(settings) as port:
        log = structlog.get_logger("worker")
        beside = (housekeeping(settings, failpoint=failpoint), spans())
        observer = Observers(observer or LogObserver(), port.observer, *(each for each in beside if each is not None))
        try:
            with should_stop.interrupts():
                worker = _start(settings, observer, port, should_stop, failpoint)
        except KeyboardInterrupt:
            log.info("worker_stopped", note="it was told to before its first step; nothing was read")
            return 0
        log.info("worker_started", topic=settings.kafka.topic, group=settings.kafka.group, root=settings.sink.root)
        log.info("partitions_awaited", note=_AWAITED.format(settings.kafka.session_timeout_ms / 1000))
        worker.run()
        log.info("worker_stopped")
    return 0


def _start(
    settings: Settings, observer: Observer, port: WorkerPort, should_stop: Callable[[], bool], failpoint: Failpoint
) -> Worker:
    """The worker, ready for its first step; it has joined no group yet."""

    def answer(attempt: Callable[[], T]) -> T:
        return patiently(attempt, observer.retry_scheduled, should_stop)

    kafka = settings.kafka
    observer.phase_entered(Phase.STARTING)
    for root in (settings.sink.root, *([settings.record.root] if settings.record.enabled else ())):
        open_store(root)  # what is wrong with a URL is told before the model takes its seconds
    source = answer(lambda: kafka_source(kafka, on_compacted=kafka.on_compacted))
    port.knows_member(lambda: source.is_member)
    try:
        observer.phase_entered(Phase.LOADING_MODEL)
        model = load_model(settings.model, settings.decode)
        observer.model_loaded(model.classes, describe(settings, model))
        return make_worker(
            settings,
            model,
            source=source,
            root=settings.sink.root,
            dead_letters=dead_letters(kafka, settings.decode.max_message_bytes),
            observer=observer,
            should_stop=should_stop,
            commits=source.committed,
            recorder=answer(lambda: worker_recorder(settings, source, failpoint=failpoint)),
            results_to=settings.results.topic_of(kafka.topic) if settings.results.enabled else None,
            partitions=answer(lambda: source.log.identity(kafka.topic)).partitions,
            failpoint=failpoint,
        )
    except BaseException:
        source.close()
        raise
