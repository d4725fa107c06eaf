"""The tables of metrics: one for a worker (`METRICS`), one for a process that reads cameras (`CAMERA_METRICS`). Pure.

Each entry has the metric's name and meaning, what to do when it moves, and the event that changes it or how it is read.

Names follow Prometheus: base units, and `_total` for counters. Series with a partition or a stream are read from what
the worker owns now, so that the series of a lost partition are gone at the next scrape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any, Generic, Literal, TypeVar

from adawise.errors import Lost, Reason
from adawise.watch.backlog import PartitionLag
from adawise.watch.camera import NEW, RETURNED, LiveCamera
from adawise.watch.counts import BATCH_S, COMMIT_S, LATENCY_S, Counters, Distribution, Labels, Movement
from adawise.watch.health import PARTIES, party_of
from adawise.watch.sources import DROP_REASONS, FAILURES, LiveSources, SourceCamera
from adawise.watch.worker import LiveWorker
from adawise.worker.events import (
    BatchServed,
    DeadLetterSent,
    FrameRejected,
    GapFound,
    PairServes,
    PartitionLost,
    PartitionProgress,
    PartitionRecovered,
    ProducerMistaken,
    ResultsPublished,
    RetryScheduled,
    SegmentCommitted,
    WorkerProgress,
)

Samples = Iterable[tuple[Labels, float | Distribution]]
NONE: Labels = ()


@dataclass(frozen=True, slots=True)
class Scrape:
    """The sources of a worker's samples: its state, its counters, and values that only the HTTP port knows."""

    worker: LiveWorker
    counters: Counters
    version: str
    max_streams: int  # streams that have series of their own, at most
    viewers: int  # browsers on the live page
    dropped: int  # events
    clock_s: float  # the machine's clock as Unix time; unlike `steady` it jumps when it is set


@dataclass(frozen=True, slots=True)
class SourceScrape:
    """The sources of the samples of a process that reads cameras."""

    sources: LiveSources
    version: str
    viewers: int


Kind = TypeVar("Kind")
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class MetricSeries(Generic[Read]):
    """The series of a metric. `samples` yields pairs of label values, in the order of `labels`, and a value."""

    samples: Callable[[Read], Samples]
    labels: Labels = NONE


@dataclass(frozen=True, slots=True)
class MetricSpec(Generic[Read]):
    """One metric. The values of a histogram's series are of type `Distribution`, all others are numbers.

    A counter or a histogram that only a worker's events change names the event (`moved_by`). The others are read from
    the worker's state at each scrape.
    """

    name: str
    meaning: str
    remedy: str
    series: MetricSeries[Read]
    moved_by: Movement[Any] | None = None

    @property
    def kind(self) -> Literal["counter", "gauge", "histogram"]:
        """The metric's type in Prometheus."""
        if self.moved_by is not None and self.moved_by.bounds is not None:
            return "histogram"
        return "counter" if self.name.endswith("_total") else "gauge"


def _moved(name: str, meaning: str, remedy: str, movement: Movement[Any]) -> MetricSpec[Scrape]:
    """Return a metric whose samples are the counters' values."""
    series: MetricSeries[Scrape] = MetricSeries(lambda scrape: scrape.counters.of(name).items(), movement.labels)
    return MetricSpec(name, meaning, remedy, series, movement)


def _count(event: type[Kind], amount: Callable[[Kind], float] = lambda _: 1) -> Movement[Kind]:
    """Count these events, or add up the `amount` of each."""
    return Movement(event, lambda e: [(NONE, amount(e))], known=[NONE])


def _by(
    label: str,
    event: type[Kind],
    value: Callable[[Kind], str | None],
    amount: Callable[[Kind], float] = lambda _: 1,
    *,
    known: Iterable[str] = (),
) -> Movement[Kind]:
    """Count events by the value of a label; an event without a value (None) is not counted."""

    def amounts(e: Kind) -> Iterator[tuple[Labels, float]]:
        if (found := value(e)) is not None:
            yield (found,), amount(e)

    return Movement(event, amounts, (label,), [(str(name),) for name in known])


def _distribution(
    event: type[Kind], values: Callable[[Kind], Iterable[float]], bounds: Sequence[float]
) -> Movement[Kind]:
    return Movement(event, lambda e: ((NONE, value) for value in values(e)), known=[NONE], bounds=bounds)


def _latencies_s(event: BatchServed) -> Iterator[float]:
    predicted_s = (event.trace.predicted_at_us or 0) / 1e6
    return (max(0.0, predicted_s - stamp_ms / 1e3) for stamp_ms in event.timestamps_ms if stamp_ms >= 0)


def _one(value: Callable[[LiveWorker], float | Distribution]) -> MetricSeries[Scrape]:
    return MetricSeries(lambda scrape: [(NONE, value(scrape.worker))])


def _each(label: str, value: Callable[[LiveWorker], Counter[str]], names: Iterable[str] = ()) -> MetricSeries[Scrape]:
    """Return a series for each name. `names` exist from the beginning, at 0, so that an increase to 1 is visible."""
    known = dict.fromkeys(map(str, names), 0)
    return MetricSeries(
        lambda scrape: [((name,), count) for name, count in {**known, **value(scrape.worker)}.items()], (label,)
    )


def _partitions(value: Callable[[PartitionProgress], float | None]) -> MetricSeries[Scrape]:
    def samples(scrape: Scrape) -> Iterator[tuple[Labels, float]]:
        progress = scrape.worker.health.progress
        for tp, partition in progress.partitions.items() if progress else ():
            if (found := value(partition)) is not None:
                yield (str(tp.partition),), found

    return MetricSeries(samples, ("partition",))


def _backlogs(value: Callable[[PartitionLag], float | None]) -> MetricSeries[Scrape]:
    def samples(scrape: Scrape) -> Iterator[tuple[Labels, float]]:
        for tp, backlog in scrape.worker.backlogs().items():
            if (found := value(backlog)) is not None:
                yield (str(tp.partition),), found

    return MetricSeries(samples, ("partition",))


def _outages(scrape: Scrape) -> Iterator[tuple[Labels, float]]:
    now_s = scrape.worker.now_s
    for party in PARTIES:
        outage = scrape.worker.health.outage(party)
        yield (party,), now_s - outage.since_s if outage else 0.0


def _full(worker: LiveWorker) -> float:
    outage = worker.health.outage("store")
    return float(outage is not None and outage.is_full)


def _streams(value: Callable[[LiveCamera], float | None]) -> MetricSeries[Scrape]:
    """Return series of the streams with the most images, `max_streams` at most.

    Stream names come from producers. Without a limit, a producer could create any number of series.
    """

    def samples(scrape: Scrape) -> Iterator[tuple[Labels, float]]:
        cameras = scrape.worker.cameras.values()
        for camera in nlargest(scrape.max_streams, cameras, key=lambda camera: camera.images):
            if (found := value(camera)) is not None:
                yield (camera.stream_id, str(camera.tp.partition)), found

    return MetricSeries(samples, ("stream", "partition"))


def _progress(value: Callable[[WorkerProgress], float]) -> MetricSeries[Scrape]:
    """Return a series read from the worker's progress; it is absent until the loop has turned once."""

    def samples(scrape: Scrape) -> Samples:
        progress = scrape.worker.health.progress
        return [] if progress is None else [(NONE, value(progress))]

    return MetricSeries(samples)


def _model(labels: Labels) -> MetricSeries[Scrape]:
    def samples(scrape: Scrape) -> Samples:
        facts = scrape.worker.facts
        return [(tuple(facts.get(name, "") for name in labels), 1.0)] if facts else []

    return MetricSeries(samples, labels)


def _pairs(scrape: Scrape) -> Samples:
    progress = scrape.worker.health.progress
    return [((number, state), 1.0) for number, (state, _) in progress.pairs.states.items()] if progress else []


METRICS: tuple[MetricSpec[Scrape], ...] = (
    # what is served
    _moved(
        "adawise_images_total",
        "Images that were classified.",
        "At 0 with lag: see adawise_ready and /readyz.",
        _count(BatchServed, lambda e: e.trace.images),
    ),
    _moved(
        "adawise_forwards_total",
        "Images that passed the image tower. Divided by adawise_images_total: forwards per image (FE). Plain CLIP "
        "has 1.",
        "FE stays above 2: images change faster than the search settles; raise search.price to spend less.",
        _count(BatchServed, lambda e: e.trace.forward_equivalents * e.trace.images),
    ),
    _moved(
        "adawise_batches_total",
        "Batches that were adapted, by the reason why other alphas were tried.",
        "Many too_few_images: cameras send too seldom for batch.max_age_s. Any not_finite: check the card. Any "
        "failed: see search_failed in the log.",
        _by("trigger", BatchServed, lambda e: e.trace.trigger),
    ),
    _moved(
        "adawise_state_resets_total",
        "Streams whose adaptation started anew, by reason.",
        "crowded: raise limits.streams, or find the producer that sends under new names. jump: a camera's images "
        "changed suddenly.",
        _by("reason", BatchServed, lambda e: e.trace.reset or None, known=("crowded", "jump", "shortlist")),
    ),
    _moved(
        "adawise_alarm_batches_total",
        "Batches whose alpha was limited because the objective may prefer over-confident weights.",
        "Rising: `adawise drift` lists the cameras; label some of their images, then run `adawise card correct`.",
        _count(BatchServed, lambda e: bool(e.trace.alarm)),
    ),
    MetricSpec(
        "adawise_conditions_total",
        "Conditions (light, weather or content) that streams entered: new ones, and known ones that returned.",
        "Many new ones a day: search.conditions is too small, or cameras move.",
        _each("outcome", lambda w: w.conditions, [NEW, RETURNED]),
    ),
    _moved(
        "adawise_prediction_latency_seconds",
        "Time from an image's broker timestamp to its prediction.",
        "Above batch.max_age_s with lag: start more workers. Without lag: lower batch.images or batch.max_age_s.",
        _distribution(BatchServed, _latencies_s, LATENCY_S),
    ),
    _moved(
        "adawise_batch_seconds",
        "A batch's share of the time that its round took in forwards and search.",
        "Longer than before: another process uses the processor, or the device throttles.",
        _distribution(BatchServed, lambda e: [sum(e.trace.milliseconds.values()) / 1e3], BATCH_S),
    ),
    # what is not
    _moved(
        "adawise_rejected_total",
        "Images and messages that were rejected, by reason.",
        "Look the reason up in the reference; the rows and the dead letters name the producer.",
        _by("reason", FrameRejected, lambda e: str(e.frame.reason), known=Reason),
    ),
    _moved(
        "adawise_producer_mistakes_total",
        "Images that were accepted although their message has a mistake, such as an invalid time.",
        "The log's producer_mistaken names the stream and the mistake.",
        _count(ProducerMistaken),
    ),
    _moved(
        "adawise_dead_letters_total",
        "Messages that were sent to the dead-letter topic.",
        "`adawise dlq` shows them.",
        _count(DeadLetterSent),
    ),
    _moved(
        "adawise_results_total",
        "Rows that were published on the results topic, repeats included. 0 without results.enabled.",
        "Behind adawise_images_total (early) or adawise_rows_total (committed): the broker does not keep up.",
        _count(ResultsPublished, lambda e: e.rows),
    ),
    _moved(
        "adawise_lost_messages_total",
        "Offsets that will have no rows, by reason.",
        "deleted: raise retention.ms, or start more workers. Others: see the reference of gaps.",
        _by("reason", GapFound, lambda e: str(e.gap.reason), lambda e: e.gap.until - e.gap.first, known=Lost),
    ),
    # what is written
    _moved(
        "adawise_segments_total",
        "Segments that this worker wrote.",
        "No increase while rows wait: see adawise_retries_total and the log.",
        _count(SegmentCommitted, lambda e: e.commit.won),
    ),
    _moved(
        "adawise_rows_total",
        "Rows in these segments, rejected images included.",
        "It follows adawise_images_total by sink.flush_age_s.",
        _count(SegmentCommitted, lambda e: e.commit.rows if e.commit.won else 0),
    ),
    _moved(
        "adawise_segment_bytes_total",
        "Bytes of these segments.",
        "Plan the store's size by it; `adawise compact` merges small files.",
        _count(SegmentCommitted, lambda e: e.commit.size_bytes if e.commit.won else 0),
    ),
    _moved(
        "adawise_segment_commit_seconds",
        "Time that the store took to write a segment.",
        "Seconds: the store is slow, and reading will pause. Raise sink.flush_rows for fewer, larger segments.",
        _distribution(SegmentCommitted, lambda e: [e.commit.seconds] if e.commit.won else [], COMMIT_S),
    ),
    MetricSpec(
        "adawise_last_segment_timestamp_seconds",
        "Time when the last segment was written; absent before the first.",
        "Old while rows wait: the store does not answer.",
        MetricSeries(lambda scrape: [] if scrape.worker.committed_s is None else [(NONE, scrape.worker.committed_s)]),
    ),
    _moved(
        "adawise_races_lost_total",
        "Segments that another worker had already written.",
        "A few at a rebalance are normal. Steady growth: two groups or two copies of a worker share a root.",
        _count(SegmentCommitted, lambda e: not e.commit.won),
    ),
    _moved(
        "adawise_retries_total",
        "Retries after a failure, by the party that did not answer.",
        "Nothing is lost. Check the broker or the store; retry_scheduled in the log (store_filled if the store is "
        "full) has the error.",
        _by("of", RetryScheduled, lambda e: party_of(e.error), known=PARTIES),
    ),
    MetricSpec(
        "adawise_outage_seconds",
        "Time since the start of a failure that lasts, by party: the broker, a topic that the worker writes to, a "
        "permission (a missing right, or a refused login), the store, the log. 0 while nothing fails.",
        "Nothing is lost if the topic's retention is longer. /readyz and the log say what failed.",
        MetricSeries(_outages, ("of",)),
    ),
    MetricSpec(
        "adawise_store_full",
        "1 while the output's storage is full.",
        "Free space, and the worker goes on by itself. `adawise retain` removes old output.",
        _one(_full),
    ),
    MetricSpec(
        "adawise_results_waiting",
        "Rows that wait to be published: the broker has not accepted them yet.",
        "Growing: the broker is slow or refuses. At four times sink.flush_rows reading pauses.",
        _partitions(lambda p: p.unpublished),
    ),
    MetricSpec(
        "adawise_results_in_flight_bytes",
        "Bytes of results that were sent to the broker and not acknowledged.",
        "At 8 MiB the buffer is full, and adawise_results_waiting grows: see there.",
        _progress(lambda p: p.results_bytes),
    ),
    # the group
    MetricSpec(
        "adawise_partitions",
        "Partitions that this worker reads; 0 in reserve.",
        "The sum over workers is less than the topic has: see adawise_partition_stands for blocked partitions.",
        _progress(lambda p: len(p.partitions)),
    ),
    MetricSpec(
        "adawise_group_member",
        "1 while the worker is in its consumer group and has its assigned partitions, which may be none.",
        "The sum is less than your number of workers: one is down or cannot join; see its /readyz.",
        _one(lambda w: float(w.is_member)),
    ),
    MetricSpec(
        "adawise_topic_partitions",
        "Partitions of the topic, as the broker last reported; absent before the first report.",
        "More than the sum of adawise_partitions and adawise_partitions_recovering: no worker reads some of them.",
        MetricSeries(
            lambda scrape: [] if scrape.worker.topic_partitions is None else [(NONE, scrape.worker.topic_partitions)]
        ),
    ),
    MetricSpec(
        "adawise_partitions_recovering",
        "Partitions that are assigned to this worker but not read yet.",
        "For minutes: their log was rewritten, or the store does not answer; see the log.",
        _progress(lambda p: len(p.recovering)),
    ),
    _moved(
        "adawise_partitions_gained_total",
        "Partitions that this worker took over.",
        "Steady growth: workers are expelled; see kafka.max_poll_interval_ms.",
        _count(PartitionRecovered),
    ),
    _moved(
        "adawise_partitions_lost_total",
        "Partitions that were taken from this worker.",
        "As adawise_partitions_gained_total.",
        _count(PartitionLost),
    ),
    MetricSpec(
        "adawise_lag_messages",
        "Messages of the partition without a durable row: at the broker, in memory, or in an open batch.",
        "Growing: start more workers, up to the number of partitions, or raise search.price to spend less.",
        _backlogs(lambda b: b.lag),
    ),
    MetricSpec(
        "adawise_lag_seconds",
        "Age of the oldest of these messages, by its Kafka timestamp; 0 if there is none.",
        "Growing: as for adawise_lag_messages. Images older than retention.ms are lost.",
        _backlogs(lambda b: b.age_s),
    ),
    MetricSpec(
        "adawise_arriving_messages_per_second",
        "Rate at which messages arrived in the partition over the last five minutes.",
        "Above adawise_served_messages_per_second for long: the partition falls behind; see adawise_lag_messages.",
        _backlogs(lambda b: b.arriving_per_s),
    ),
    MetricSpec(
        "adawise_served_messages_per_second",
        "Rate at which messages of the partition got durable rows over the last five minutes.",
        "0 with lag: nothing is written; see adawise_outage_seconds and adawise_partition_stands.",
        _backlogs(lambda b: b.served_per_s),
    ),
    MetricSpec(
        "adawise_catch_up_seconds",
        "Time until the partition has no backlog, at these two rates: 0 if the oldest message is younger than a "
        "minute, +Inf if more arrive than are served.",
        "+Inf for long: as for adawise_lag_messages. Otherwise the backlog ends by itself.",
        _backlogs(lambda b: b.catch_up_s),
    ),
    MetricSpec(
        "adawise_pending_messages",
        "Messages that were read but whose batch is not complete.",
        "Up to batch.images for each camera. They wait batch.max_age_s at most.",
        _partitions(lambda p: p.pending),
    ),
    MetricSpec(
        "adawise_uncommitted_rows",
        "Complete rows that are not in a segment yet.",
        "Beyond sink.flush_rows: the store does not keep up.",
        _partitions(lambda p: p.rows),
    ),
    MetricSpec(
        "adawise_partition_stands",
        "1 while the partition is blocked, because its next message cannot be read.",
        "The log says why: a damaged batch or an unknown codec. kafka.on_unreadable=skip skips it.",
        _partitions(lambda p: float(p.blocked)),
    ),
    MetricSpec(
        "adawise_partition_paused",
        "1 while reading of the partition is paused because enough of it is in memory.",
        "Mostly 1 with lag: the model is the bottleneck, which is normal unless the lag grows.",
        _partitions(lambda p: float(p.paused)),
    ),
    # memory
    MetricSpec(
        "adawise_held_bytes",
        "Bytes of messages and decoded images in memory.",
        "At adawise_held_bytes_limit reading pauses, which is normal.",
        _progress(lambda p: p.held_bytes),
    ),
    MetricSpec(
        "adawise_held_bytes_limit",
        "Limit of these bytes: limits.inflight_mib.",
        "Raise it if batches are closed early.",
        _progress(lambda p: p.limit_bytes),
    ),
    MetricSpec(
        "adawise_backpressure_paused",
        "1 while nothing is read because rows or the recording wait to be written.",
        "The store or the recording's store is too slow or does not answer.",
        _progress(lambda p: float(p.paused)),
    ),
    MetricSpec(
        "adawise_batches_closed_early_total",
        "Batches that were closed before they were full, for lack of memory.",
        "Raise limits.inflight_mib, or lower batch.images.",
        _one(lambda w: w.closed_early),
    ),
    MetricSpec(
        "adawise_streams_evicted_total",
        "Streams whose state was dropped; they start anew when they return.",
        "Raise limits.streams, spread streams over more partitions, or find the producer that sends under new names.",
        _one(lambda w: w.evicted),
    ),
    # cameras
    MetricSpec(
        "adawise_cameras",
        "Cameras of this worker by state, as on the live page, including those that the chain has of the last day.",
        "Alert on failing, rejected and silent; the page says which and why.",
        MetricSeries(
            lambda scrape: [((str(state),), count) for state, count in scrape.worker.states().items()], ("state",)
        ),
    ),
    MetricSpec(
        "adawise_stream_images_total",
        "Classified images of the stream since it came to this worker. For http.max_streams streams.",
        "A rate of 0: the camera is silent.",
        _streams(lambda c: c.images),
    ),
    MetricSpec(
        "adawise_stream_rejected_total",
        "Rejected images of the stream. For the same streams.",
        "See adawise_rejected_total.",
        _streams(lambda c: c.rejected),
    ),
    MetricSpec(
        "adawise_stream_off_list_total",
        "Classified images of the stream whose first class among all classes is sure and not on its shortlist. For the "
        "same streams; 0 without a shortlist.",
        "Above a twentieth of its images: `adawise status` names the class; add it, or remove the shortlist.",
        _streams(lambda c: c.off_list),
    ),
    MetricSpec(
        "adawise_stream_alpha",
        "Alpha of the stream's last batch: 0 zero-shot, 1 fine-tuned. For the same streams.",
        "It moved and stayed: the camera sees something else; `adawise drift` says what.",
        _streams(lambda c: c.alpha),
    ),
    MetricSpec(
        "adawise_stream_forward_equivalents",
        "Forwards per image (FE) of the stream over the last minutes. For the same streams.",
        "Above 2 for long: the search does not settle.",
        _streams(lambda c: c.forward_equivalents),
    ),
    MetricSpec(
        "adawise_stream_last_image_timestamp_seconds",
        "Time when the stream's last image was classified or rejected; until it sends to this worker, its last "
        "image's Kafka timestamp. For the same streams.",
        "Old: the camera is silent, or its partition lags.",
        _streams(lambda c: c.last_seen_s),
    ),
    MetricSpec(
        "adawise_streams_without_series",
        "Cameras of this worker beyond http.max_streams, which have no series of their own.",
        "Raise http.max_streams if Prometheus can take it, or use the live page.",
        MetricSeries(lambda scrape: [(NONE, max(0, len(scrape.worker.cameras) - scrape.max_streams))]),
    ),
    # the worker itself
    MetricSpec(
        "adawise_ready",
        "1 if /readyz says ready.",
        "/readyz says why not.",
        _one(lambda w: float(w.health.ready(w.now_s).ok)),
    ),
    MetricSpec(
        "adawise_seconds_since_step",
        "Time since the last step or event of the worker's loop.",
        "A round of forwards takes seconds. Above http.stuck_after_s, /livez asks for a restart.",
        _one(lambda w: max(0.0, w.now_s - w.health.beat_s)),
    ),
    MetricSpec(
        "adawise_clock_seconds",
        "The machine's clock when it was scraped, as Unix time.",
        "Far from Prometheus' own: check NTP; times of predictions and silence are wrong by as much.",
        MetricSeries(lambda scrape: [(NONE, scrape.clock_s)]),
    ),
    MetricSpec(
        "adawise_build_info",
        "Always 1, with the version.",
        "Workers of one group differ for long: a rollout is stuck.",
        MetricSeries(lambda scrape: [((scrape.version,), 1.0)], ("version",)),
    ),
    MetricSpec(
        "adawise_model_info",
        "Always 1, with the pair's fingerprint, card, device and number format. Absent until the pair is loaded.",
        "Workers of one root differ: one uses other checkpoints or another card.",
        _model(("fingerprint", "card", "device", "precision")),
    ),
    MetricSpec(
        "adawise_pair_state",
        "Always 1, for each pair that this worker knows, by number: serves, ready, loading, failed or former.",
        "failed: `adawise pair list` says why. Workers differ for long: one cannot load the pair.",
        MetricSeries(_pairs, ("pair", "state")),
    ),
    _moved(
        "adawise_pair_switches_total",
        "Switches of a partition to another pair.",
        "Caused by `adawise pair switch` and `rollback`, or by a worker that lagged behind them.",
        _count(PairServes, lambda e: e.switch is not None),
    ),
    MetricSpec(
        "adawise_shadow_images",
        "Images that the staged pair has classified beside the serving one.",
        "No increase: see adawise_shadow_late_batches, and `adawise pair list`.",
        _progress(lambda p: p.pairs.shadow_images),
    ),
    MetricSpec(
        "adawise_shadow_agreed_images",
        "Images of these to which the staged pair gave the served label.",
        "Few: look at the worst cameras in `adawise pair list` before `adawise pair switch`.",
        _progress(lambda p: p.pairs.shadow_agreed),
    ),
    MetricSpec(
        "adawise_shadow_late_batches",
        "Batches that the staged pair classified too late for their segment, or never.",
        "Many: the worker has no spare time; raise pairs.shadow_share, or stage at a quieter hour.",
        _progress(lambda p: p.pairs.shadow_late),
    ),
    MetricSpec(
        "adawise_page_viewers",
        "Browsers that have the live page open.",
        "At most 32; others are refused.",
        MetricSeries(lambda scrape: [(NONE, scrape.viewers)]),
    ),
    MetricSpec(
        "adawise_observations_dropped_total",
        "Events that page and metrics missed, because they came too fast.",
        "Only a flood of rejected images causes this. Counts are too low by as many; rows are complete.",
        MetricSeries(lambda scrape: [(NONE, scrape.dropped)]),
    ),
)


def worker_counters() -> Counters:
    """Return the counters and histograms of a worker, at 0."""
    return Counters({spec.name: spec.moved_by for spec in METRICS if spec.moved_by is not None})


def _sources(value: Callable[[LiveSources], float]) -> MetricSeries[SourceScrape]:
    return MetricSeries(lambda scrape: [(NONE, value(scrape.sources))])


def _each_source(value: Callable[[SourceCamera], float | None]) -> MetricSeries[SourceScrape]:
    """Return a series for each camera. Their number needs no limit: the operator's file names the cameras."""

    def samples(scrape: SourceScrape) -> Iterator[tuple[Labels, float]]:
        for camera in scrape.sources.cameras.values():
            if (found := value(camera)) is not None:
                yield (camera.stream_id,), found

    return MetricSeries(samples, ("camera",))


def _by_reason(
    value: Callable[[SourceCamera], Counter[str]], label: str, reasons: Sequence[str]
) -> MetricSeries[SourceScrape]:
    def samples(scrape: SourceScrape) -> Iterator[tuple[Labels, float]]:
        for camera in scrape.sources.cameras.values():
            for reason in reasons:
                yield (camera.stream_id, reason), value(camera)[reason]

    return MetricSeries(samples, ("camera", label))


_BROKERS = ("broker", "topic", "permission")

CAMERA_METRICS: tuple[MetricSpec[SourceScrape], ...] = (
    MetricSpec(
        "adawise_camera_up",
        "1 while the camera's stream is open.",
        "0: the page and the log's camera_failed say why; `adawise cameras FILE --check` tries each once.",
        _each_source(lambda camera: float(camera.is_open)),
    ),
    MetricSpec(
        "adawise_camera_frames_total",
        "Frames that were handed to the broker.",
        "Its rate is below the camera's `rate`: the camera sends fewer, or frames are dropped.",
        _each_source(lambda camera: camera.sent),
    ),
    MetricSpec(
        "adawise_camera_bytes_total",
        "Bytes of these frames.",
        "Plan the topic's size by it; a smaller `longest`, `rate` or `quality` lowers it.",
        _each_source(lambda camera: camera.sent_bytes),
    ),
    MetricSpec(
        "adawise_camera_dropped_total",
        "Frames that were not sent, by reason: behind (the broker), damaged, too_large.",
        "behind: the broker is slow or does not answer, or set when_behind to wait. damaged: the network loses "
        "packets; use transport tcp. too_large: a smaller `longest` or `quality`, or a larger max.message.bytes of "
        "the topic.",
        _by_reason(lambda camera: camera.dropped, "reason", DROP_REASONS),
    ),
    MetricSpec(
        "adawise_camera_connects_total",
        "Connections that were made to the camera.",
        "Growing: the network or the camera fails again and again; the log says how.",
        _each_source(lambda camera: camera.connects),
    ),
    MetricSpec(
        "adawise_camera_failures_total",
        "Connections that ended, by kind: failed, or refused until its cause is fixed.",
        "refused: credentials, address or device are wrong; the log's camera_failed names the remedy.",
        _by_reason(lambda camera: camera.failures, "kind", FAILURES),
    ),
    MetricSpec(
        "adawise_camera_frozen_seconds",
        "Time for which the camera has sent the same picture; 0 below frozen_after_s, and while it sends nothing.",
        "Restart the camera: its sensor or its encoder hangs. A still scene without noise looks the same.",
        MetricSeries(
            lambda scrape: [
                ((name,), camera.frozen_s(scrape.sources.now_s, scrape.sources.policy))
                for name, camera in scrape.sources.cameras.items()
            ],
            ("camera",),
        ),
    ),
    MetricSpec(
        "adawise_camera_last_frame_timestamp_seconds",
        "Time when the camera's last frame came; absent before the first.",
        "Old: the camera is silent or failing.",
        _each_source(lambda camera: camera.last_seen_s),
    ),
    MetricSpec(
        "adawise_camera_delay_seconds",
        "Time from when the last frame was taken, by the clock that its header names, until it came.",
        "Seconds: the camera or the network holds frames back, or its clock is behind.",
        _each_source(lambda camera: None if camera.last_seen_s is None else camera.delay_s),
    ),
    MetricSpec(
        "adawise_cameras",
        "Cameras by state, as on the live page.",
        "Alert on failing, rejected, silent and frozen; the page says which and why.",
        MetricSeries(
            lambda scrape: [((str(state),), count) for state, count in scrape.sources.states().items()], ("state",)
        ),
    ),
    MetricSpec(
        "adawise_frames_waiting",
        "Frames in memory that wait for the broker.",
        "Growing: the broker is slow or does not answer.",
        _sources(lambda sources: sources.waiting),
    ),
    MetricSpec(
        "adawise_retries_total",
        "Retries after a failure, by the party that did not answer.",
        "Check the broker; retry_scheduled in the log has the error.",
        MetricSeries(lambda scrape: [((of,), scrape.sources.retries[of]) for of in _BROKERS], ("of",)),
    ),
    MetricSpec(
        "adawise_ready",
        "1 if /readyz says ready.",
        "/readyz says why not.",
        _sources(lambda sources: float(sources.health.ready(sources.now_s).ok)),
    ),
    MetricSpec(
        "adawise_seconds_since_step",
        "Time since the sending loop last made a step.",
        "Above http.stuck_after_s, /livez asks for a restart.",
        _sources(lambda sources: max(0.0, sources.now_s - sources.health.beat_s)),
    ),
    MetricSpec(
        "adawise_build_info",
        "Always 1, with the version.",
        "Processes differ for long: a rollout is stuck.",
        MetricSeries(lambda scrape: [((scrape.version,), 1.0)], ("version",)),
    ),
    MetricSpec(
        "adawise_page_viewers",
        "Browsers that have the live page open.",
        "At most 32; others are refused.",
        MetricSeries(lambda scrape: [(NONE, scrape.viewers)]),
    ),
)
