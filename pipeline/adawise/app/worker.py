"""Settings -> the worker: on the topic, with all that belongs to it and its whole life, or on any other source."""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import structlog

from adawise.app.http import WorkerPort, worker_port
from adawise.app.kafka import dead_letters as open_dead_letters
from adawise.app.kafka import kafka_source, log_certificates, results
from adawise.app.machine import usable_cores
from adawise.app.model import ModelPair, adaptation, identity_of, meant, method_in_words, served_by, warn_of_scene
from adawise.app.pairs import begin_orders, check_start, live_pairs, starting_pair
from adawise.app.parts import alert_rules, open_decoder
from adawise.app.precision import choose_precision, claim_root_precision, log_damage, precision_of_root
from adawise.app.recording import worker_recorder
from adawise.app.signals import stop_signals
from adawise.app.telemetry import spans
from adawise.app.waiting import answered, await_store
from adawise.decode.child import IsolatedDecoder
from adawise.decode.codec import sniff
from adawise.decode.share import CameraShare
from adawise.errors import PrecisionTaken
from adawise.output.compaction.delete import now_of
from adawise.output.compaction.retain import removal, remove, sweep
from adawise.pairs.orders import PairDocument, read_orders
from adawise.ports import DeadLetters, Results, ServedBy, Source
from adawise.records import BatchEnds, Message, TopicPartition
from adawise.settings import Settings
from adawise.sink.chain import Commits, SegmentChain
from adawise.sink.owner import Owner
from adawise.sink.served_by import OnChange, claim_pair
from adawise.sink.starts import StoredStarts
from adawise.store.store import Failpoint, Store, open_store
from adawise.watch.health import HealthReport
from adawise.watch.observer import steady
from adawise.worker.backpressure import Limits
from adawise.worker.batching import BatchPolicy
from adawise.worker.commit import NoRecorder, NoResults, Outputs, WriteAheadRecorder
from adawise.worker.decode_pool import Prefetch
from adawise.worker.events import ModelLoaded, Observer, Observers, Phase, PhaseEntered
from adawise.worker.housekeeping import Housekeeping
from adawise.worker.loop import LogPolicy, Worker
from adawise.worker.observer import LogObserver
from adawise.worker.pairs import Pairs, Serving
from adawise.worker.partition import FlushPolicy, PartitionPolicy

T = TypeVar("T")

_ROUND_CHUNKS = {"cpu": 8, "cuda": 32}  # images gathered before the model runs, in forwards
_PASS_ROWS = 1_000_000  # removed from a partition in a pass: the rows of past years go in the course of days


def start_worker(
    settings: Settings,
    port: WorkerPort,
    observer: Observer,
    should_stop: Callable[[], bool],
    *,
    failpoint: Failpoint = lambda _: None,
) -> tuple[Worker, ModelPair]:
    """Return the worker with all that the settings ask for, ready for its first step, and its pair.

    It has joined no group yet. Raises KeyboardInterrupt if asked to stop while it waits for broker or store.
    """
    while True:
        try:
            return _start(settings, port, observer, should_stop, failpoint)
        except PrecisionTaken as taken:  # rare: two first workers of different processors in the same seconds
            structlog.get_logger("worker").info("precision_taken", note=str(taken))
        gc.collect()  # the error and its frames are a circle that holds the pair, and two take twice the memory


def _start(
    settings: Settings,
    port: WorkerPort,
    observer: Observer,
    should_stop: Callable[[], bool],
    failpoint: Failpoint,
) -> tuple[Worker, ModelPair]:
    """Make one try at `start_worker`. Raises PrecisionTaken: the next try finds the root's number format."""
    beside = (housekeeping(settings, failpoint=failpoint), spans())
    observer = Observers(observer, port.observer, *(each for each in beside if each is not None))

    def answer(attempt: Callable[[], T]) -> T:
        return answered(attempt, observer, should_stop)

    kafka = settings.kafka
    observer.observe(PhaseEntered(Phase.STARTING))
    log_certificates(kafka)
    for root in (settings.sink.root, *([settings.record.root] if settings.record.enabled else ())):
        open_store(root)  # a wrong URL is reported before the model takes its seconds to load
    source = answer(lambda: kafka_source(kafka, on_compacted=kafka.on_compacted))
    port.knows_group(lambda: source.is_member, lambda: source.partitions)
    health = HealthReport(steady(), lambda: source.is_member)
    observer = Observers(observer, health)
    try:
        observer.observe(PhaseEntered(Phase.LOADING_MODEL))
        orders = answer(lambda: read_orders(open_store(settings.sink.root)))
        kept = answer(lambda: precision_of_root(open_store(settings.sink.root)))
        is_auto, precision = settings.model.precision == "auto", choose_precision(settings.model, kept)
        log_damage(kept)
        precision.log(kept.root)
        settings = settings.model_copy(update={"model": precision.model})
        start = starting_pair(settings, orders)
        settings, model = start.settings, start.model
        observer.observe(ModelLoaded(model.classes, describe(settings, model)))
        answer(lambda: check_start(open_store(settings.sink.root), start, orders))
        is_ordered = bool(orders.log) and start.document.key.matches(orders.serving.key)

        def pairs(store: Store, name: str) -> Pairs:
            return live_pairs(settings, start, store, begin_orders(store, start), name, health.describe)

        parts = WorkerParts(
            source=source,
            root=settings.sink.root,
            dead_letters=open_dead_letters(kafka, settings.decode.max_message_bytes),
            observer=observer,
            should_stop=should_stop,
            commits=source.committed,
            recorder=answer(lambda: worker_recorder(settings, source, failpoint=failpoint)),
            results_to=settings.results.topic_of(kafka.topic) if settings.results.enabled else None,
            partitions=answer(lambda: source.log.identity(kafka.topic)).partitions,
            pairs=pairs,
            warmed=lambda store: claim_root_precision(store, kept, precision, is_auto=is_auto),
            claims=not start.failed,
            ordered=orders.serving if is_ordered else None,
            failpoint=failpoint,
        )
        worker = make_worker(settings, model, parts)
    except BaseException:
        source.close()
        raise
    return worker, model


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerParts:
    """The parts of a worker that depend on where it runs: on a topic, on a recording, or in a test.

    Args:
        source: where messages come from.
        root: where results are written.
        dead_letters: where messages that cannot be served are published.
        observer: notified of what happens.
        should_stop: returns True to end in order.
        owner: the owner of the root; None for the group of the settings.
        commits: returns the group's offsets at the broker and their root's id.
        recorder: records messages before they are committed, if any.
        ends_streams: see `LogPolicy`.
        results_to: the topic to which results are published, if any.
        partitions: the number of partitions with which that topic is created.
        pairs: takes the checked store and a name of this start, and chooses the pair that serves; None: always the pair
            of the start.
        warmed: called with the checked store once the pair of the start has made its first forwards.
        claims: the root is claimed for the pair of the start.
        ordered: describes that pair in the order that asks for it, if one does.
        batch_ends: where the batches of an earlier run ended, to end there again.
        share: the cameras of a shard of a replay; None for all.
        failpoint: called where the worker can die.
    """

    source: Source
    root: str
    dead_letters: DeadLetters
    observer: Observer
    should_stop: Callable[[], bool]
    owner: Owner | None = None
    commits: Callable[[], Commits] = dict
    recorder: WriteAheadRecorder | None = None
    ends_streams: bool = True
    results_to: str | None = None
    partitions: int = 1
    pairs: Callable[[Store, str], Pairs] | None = None
    warmed: Callable[[Store], None] = lambda _: None
    claims: bool = True
    ordered: PairDocument | None = None
    batch_ends: BatchEnds | None = None
    share: CameraShare | None = None
    failpoint: Failpoint = lambda _: None


def make_worker(settings: Settings, model: ModelPair, parts: WorkerParts) -> Worker:
    """Return the worker over any source; the store is checked and the model, the pair of the start, warmed up.

    While the store does not answer, this waits, unless `should_stop()`: the worker then has nothing to do but to end.
    """
    store, name = open_store(parts.root, failpoint=parts.failpoint), uuid4().hex
    chain = _chain(settings, model, store, parts)
    followed: list[Pairs] = []

    def check() -> None:
        chain.check()
        if parts.owner is None and parts.claims:  # a replay records its models in `_replay.json`
            _claim_root(settings, model, store, parts.ordered)
        if parts.pairs is not None:
            followed.append(parts.pairs(store, name))

    serving = _serving(settings, model)
    parts.observer.observe(PhaseEntered(Phase.CHECKING_STORE))
    if await_store(check, parts.observer, parts.should_stop):  # before the first poll, which joins the group
        parts.observer.observe(PhaseEntered(Phase.ENCODING_TEXT))
        model.classifier.warm_up(serving.adaptation.strategy.reach[0])
        await_store(lambda: parts.warmed(store), parts.observer, parts.should_stop)
    return Worker(
        source=parts.source,
        prefetch=_decode_pool(settings, model, parts.share),
        pairs=followed[-1] if followed else Pairs(serving, keeps=settings.model.on_change == "keep"),
        outputs=_outputs(settings, model, chain, parts),
        observer=parts.observer,
        policy=_partition_policy(settings, model, parts),
        log=LogPolicy(skip_gaps=settings.kafka.on_gap == "skip", ends_streams=parts.ends_streams),
        flush=FlushPolicy(max_rows=settings.sink.flush_rows, max_age_s=settings.sink.flush_age_s),
        limits=_limits(settings, model),
        starts=StoredStarts(store, name, time.monotonic),
        share=parts.share,
        should_stop=parts.should_stop,
        failpoint=parts.failpoint,
    )


def _chain(settings: Settings, model: ModelPair, store: Store, parts: WorkerParts) -> SegmentChain:
    return SegmentChain(
        store=store,
        by=served_by(settings, model),
        writer=f"{socket.gethostname()}:{os.getpid()}",
        owner=parts.owner or _group(settings, parts.source),
        commits=parts.commits,
        begin_anew=settings.sink.begin_anew,
        divided=parts.share is not None,
        failpoint=parts.failpoint,
    )


def _outputs(settings: Settings, model: ModelPair, chain: SegmentChain, parts: WorkerParts) -> Outputs:
    published: Results = NoResults()
    if parts.results_to is not None:
        published = results(
            settings,
            parts.results_to,
            partitions=parts.partitions,
            source=lambda: f"/adawise/roots/{chain.root_id}",
            classes=model.classes,
            model_fingerprint=model.classifier.fingerprint,
        )
    return Outputs(chain, parts.dead_letters, published, parts.recorder or NoRecorder())


def _claim_root(settings: Settings, model: ModelPair, store: Store, ordered: PairDocument | None) -> None:
    """Record in the root that `model` serves it."""
    identity = None if ordered is None else ordered.whole_identity
    config, on_change = model.checkpoints.used_config, settings.model.on_change
    changes = claim_pair(store, identity_of(model), on_change, ordered=identity, used_config=config)
    log_changes(changes, on_change if identity is None else "keep")


def _serving(settings: Settings, model: ModelPair) -> Serving:
    method = adaptation(settings, model)
    warn_of_scene(settings, model)
    prepare = partial(model.classifier.prepare, method.strategy.reach)
    return Serving(method, ServedBy(model.classes, "", ""), prepare)


def _decode_pool(settings: Settings, model: ModelPair, share: CameraShare | None) -> Prefetch:
    preprocess = model.checkpoints.preprocess
    image_bytes = 3 * preprocess.size**2
    decoder = replace(open_decoder(settings.decode, preprocess), share=share)
    isolated = IsolatedDecoder(decoder, preprocess.pixels, image_bytes)
    return Prefetch(
        decoder,
        decoder.streams,
        is_single=is_picture,
        image_bytes=image_bytes,
        threads=decode_threads(settings),
        isolated=isolated,
        isolated_streams=isolated.streams,
        end_isolated=isolated.close,
    )


def _partition_policy(settings: Settings, model: ModelPair, parts: WorkerParts) -> PartitionPolicy:
    is_live = parts.owner is None
    return PartitionPolicy(
        batches=BatchPolicy(settings.batch.images, settings.batch.max_age_s, parts.batch_ends or {}),
        forget_after_s=settings.search.forget_after_s,
        max_streams=settings.limits.streams,
        rules=alert_rules(settings.alerts, model.classes, is_scene_served=settings.scene.is_served),
        epoch_s=time.time() - time.monotonic() if is_live else None,  # in a replay no camera is silent
        is_shared=parts.share is not None,
    )


def _limits(settings: Settings, model: ModelPair) -> Limits:
    return Limits(
        inflight_bytes=settings.limits.inflight_mib * 2**20,
        uncommitted_rows=4 * settings.sink.flush_rows,
        round_images=_ROUND_CHUNKS[model.classifier.device.where.type] * model.classifier.chunk_rows,
    )


def is_picture(message: Message) -> bool:
    """Return True if a message begins like one image, so it is neither a batch nor anything that is rejected early."""
    return message.value is not None and sniff(message.value) is not None


def log_changes(changes: Mapping[str, tuple[str, str]], on_change: OnChange) -> None:
    """Log a warning for each part of the identity that differs from what the root was written with."""
    for name, (was, now) in changes.items():
        note = what_becomes_of_streams(on_change)
        structlog.get_logger("worker").warning("model_changed", part=name, was=was, now=now, note=note)


def what_becomes_of_streams(on_change: OnChange) -> str:
    """Return what happens to streams if a part of the identity differs from what the root was written with."""
    if on_change == "keep":
        return "streams keep what they learned with the other one (model.on_change is keep)"
    return "every stream starts anew; rows from now on are of this pair"


def _group(settings: Settings, source: Source) -> Owner:
    kafka = settings.kafka
    return Owner(source.log.identity(kafka.topic).cluster_id, kafka.topic, kafka.group, "run")


def decode_threads(settings: Settings) -> int:
    """Return the threads of the decode pool: the setting's, or one for each core that this process may use."""
    return settings.decode.threads or usable_cores()


def describe(settings: Settings, model: ModelPair) -> dict[str, Any]:
    """Return what was loaded, and the objective that it will minimise, for the log."""
    classifier = model.classifier
    return {
        "fingerprint": classifier.fingerprint,
        "device": str(classifier.device),
        "precision": str(classifier.dtype).removeprefix("torch."),
        "chunk_rows": classifier.chunk_rows,
        "decode_threads": decode_threads(settings),
        "classes": len(model.classes),
        "preprocessing": str(model.checkpoints.preparation),
        "bank": f"{classifier.bank.capacity} of {len(classifier.alphas)} merged copies",
        "shared_layers": model.checkpoints.shared_layers,
        "tail_share": model.checkpoints.tail_share,
        "card": model.card.digest if model.card else None,
        "objective": meant(settings.search, model).objective,
        "method": method_in_words(settings.search, model),
        "label_column": served_by(settings, model).label_column,
    }


def housekeeping(settings: Settings, *, failpoint: Failpoint = lambda _: None) -> Housekeeping | None:
    """Return the housekeeping that `sink.keep` asks for; None if it is not set."""
    if settings.sink.keep is None:
        return None
    store, keep = open_store(settings.sink.root), timedelta(seconds=settings.sink.keep)

    def tidy(tp: TopicPartition, ends: Callable[[], bool]) -> int:
        now, files = now_of(store), 0
        what = removal(store, tp, before=(now - keep).astimezone(UTC).date(), now=now, most_rows=_PASS_ROWS, ends=ends)
        if ends():
            return 0
        for _ in sweep(store, tp, now=now) if what is None else remove(store, what, failpoint=failpoint):
            files += 1
            if ends():
                break
        return files

    return Housekeeping(tidy)


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
