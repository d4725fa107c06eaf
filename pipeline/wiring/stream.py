"""Settings -> the worker on a topic, and images into a topic."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

import structlog

from pipeline.backpressure import Limits
from pipeline.decode import Decoder
from pipeline.gather import BatchPolicy
from pipeline.partition import FlushPolicy
from pipeline.ports import DeadLetters, Source
from pipeline.prefetch import Prefetch
from pipeline.settings import KafkaSettings, Settings
from pipeline.sink.chain import SegmentChain
from pipeline.sink.dead_letters import NoDeadLetters, open_dead_letters
from pipeline.sink.store import open_store
from pipeline.source.kafka import KafkaSource
from pipeline.telemetry import LogObserver, Observer
from pipeline.wiring.model import Model, adaptation, digest, load_model
from pipeline.worker import Worker

_DEAD_LETTER_TIMEOUT_S = 10.0
_ROUND_CHUNKS = 8  # forwards' worth of images gathered before the model runs

Hook = Callable[[str], None]


def run_worker(settings: Settings, *, at: Hook = lambda _: None, observer: Observer | None = None) -> int:
    """Classify the topic until SIGTERM or SIGINT; then flush, commit and return 0."""
    with stop_signals() as should_stop:
        log = structlog.get_logger("worker")
        source = kafka_source(settings.kafka)
        try:
            model = load_model(settings.model)
            log.info("model_loaded", **describe(model))
            worker = make_worker(
                settings,
                model,
                source=source,
                root=settings.sink.root,
                dead_letters=dead_letters(settings.kafka, settings.decode.max_message_bytes),
                observer=observer or LogObserver(),
                should_stop=should_stop,
                at=at,
            )
        except BaseException:
            source.close()
            raise
        log.info("worker_started", topic=settings.kafka.topic, group=settings.kafka.group, root=settings.sink.root)
        worker.run()
        log.info("worker_stopped")
    return 0


def make_worker(
    settings: Settings,
    model: Model,
    *,
    source: Source,
    root: str,
    dead_letters: DeadLetters,
    observer: Observer,
    should_stop: Callable[[], bool],
    at: Hook = lambda _: None,
) -> Worker:
    """The worker over any source, writing to `root`; the store is checked and the model warmed up."""
    chain = SegmentChain(
        store=open_store(root, at=at),
        classes=model.classes,
        model_fingerprint=model.classifier.fingerprint,
        config_fingerprint=config_fingerprint(settings, model),
        writer=f"{socket.gethostname()}:{os.getpid()}",
        at=at,
    )
    chain.check()
    model.classifier.warm_up()
    preprocess = model.pair.preprocess
    prefetch = Prefetch(
        Decoder(
            preprocess,
            max_message_bytes=settings.decode.max_message_bytes,
            max_rows=settings.decode.max_rows,
            max_pixels=settings.decode.max_pixels,
        ),
        threads=settings.decode.threads or os.cpu_count() or 1,
        image_bytes=3 * preprocess.size**2,
    )
    return Worker(
        source=source,
        prefetch=prefetch,
        adaptation=adaptation(settings, model),
        sink=chain,
        dead_letters=dead_letters,
        observer=observer,
        batches=BatchPolicy(images=settings.batch.images, max_age_s=settings.batch.max_age_s),
        flush=FlushPolicy(max_rows=settings.sink.flush_rows, max_age_s=settings.sink.flush_age_s),
        limits=Limits(
            inflight_bytes=settings.limits.inflight_mib * 2**20,
            uncommitted_rows=4 * settings.sink.flush_rows,
            round_images=_ROUND_CHUNKS * model.classifier.chunk_rows,
        ),
        skip_gaps=settings.kafka.on_gap == "skip",
        should_stop=should_stop,
        at=at,
    )


def config_fingerprint(settings: Settings, model: Model) -> str:
    """Hash of what results depend on beside the model: search, batches, decoding, the card."""
    parts = settings.model_dump_json(include={"search", "batch", "decode", "predict"})
    return digest(f"{parts} {model.card.digest if model.card else ''}")


def describe(model: Model) -> dict[str, Any]:
    """What was loaded, for the log."""
    classifier = model.classifier
    return {
        "fingerprint": classifier.fingerprint,
        "device": str(classifier.device),
        "precision": str(classifier.dtype).removeprefix("torch."),
        "chunk_rows": classifier.chunk_rows,
        "classes": len(model.classes),
        "bank": f"{classifier.bank.capacity} of {len(classifier.alphas)} merged copies",
        "card": model.card.digest if model.card else None,
    }


def kafka_source(
    settings: KafkaSettings, *, group: bool = True, origin: Literal["earliest", "latest"] | None = None
) -> KafkaSource:
    """The topic of the settings; without `group`, all of its partitions and no commits."""
    return KafkaSource(
        bootstrap_servers=settings.bootstrap_servers,
        topic=settings.topic,
        group=settings.group if group else None,
        origin=origin or settings.origin_ms or ("latest" if settings.origin == "latest" else "earliest"),
        client_id=settings.client_id,
        static_member=settings.static_member if group else None,
        session_timeout_ms=settings.session_timeout_ms,
        max_poll_interval_ms=settings.max_poll_interval_ms,
        max_poll_records=settings.max_poll_records,
        max_partition_fetch_bytes=settings.max_partition_fetch_bytes,
        security=security(settings),
    )


def dead_letters(settings: KafkaSettings, max_message_bytes: int) -> DeadLetters:
    """The dead-letter topic of the settings, or none."""
    if not settings.dead_letters:
        return NoDeadLetters()
    return open_dead_letters(
        bootstrap_servers=settings.bootstrap_servers,
        client_id=settings.client_id,
        security=security(settings),
        topic=settings.dead_letters_to,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        max_message_bytes=max_message_bytes,
        max_inflight_bytes=4 * max_message_bytes,
        timeout_s=_DEAD_LETTER_TIMEOUT_S,
    )


def security(settings: KafkaSettings) -> dict[str, object]:
    """kafka-python's arguments for TLS and SASL."""
    chosen = settings.security
    arguments = {
        "security_protocol": chosen.protocol,
        "ssl_cafile": chosen.ssl_ca and str(chosen.ssl_ca),
        "ssl_certfile": chosen.ssl_certificate and str(chosen.ssl_certificate),
        "ssl_keyfile": chosen.ssl_key and str(chosen.ssl_key),
        "ssl_password": chosen.ssl_key_password and chosen.ssl_key_password.get_secret_value(),
        "sasl_mechanism": chosen.sasl_mechanism,
        "sasl_plain_username": chosen.sasl_username,
        "sasl_plain_password": chosen.sasl_password and chosen.sasl_password.get_secret_value(),
    }
    return {name: value for name, value in arguments.items() if value is not None}


@contextmanager
def stop_signals(on_stop: Callable[[], object] = lambda: None) -> Iterator[Callable[[], bool]]:
    """SIGTERM and SIGINT ask for an orderly end; the second of them ends the process at once, which is safe too."""
    stopping = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            os._exit(128 + number)
        stopping = True
        on_stop()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: stopping
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
