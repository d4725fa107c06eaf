"""Every metric: its name, its meaning, what to do when it moves, and where its samples come from. Pure.

One table is of a worker, one of a process that reads cameras.

Names follow Prometheus: base units, `_total` for what only grows. Series with a partition or a stream are read from
what the worker owns now, so that those of a lost partition are gone with the next scrape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import Generic, Literal, TypeVar

from adawise.errors import Lost, Reason
from adawise.live.camera import LiveCamera
from adawise.live.counts import Distribution
from adawise.live.health import PARTIES
from adawise.live.sources import DROP_REASONS, FAILURES, LiveSources, SourceCamera
from adawise.live.worker import LiveWorker
from adawise.worker.observer import PairsProgress, PartitionProgress

Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float | Distribution]]
NONE: Labels = ()


@dataclass(frozen=True, slots=True)
class Scrape:
    """What samples are read from: the worker, and what only the port knows."""

    worker: LiveWorker
    version: str
    max_streams: int  # with series of their own
    viewers: int  # of the live page
    dropped: int  # events
    clock_s: float  # the machine's, which may be set; Unix time


@dataclass(frozen=True, slots=True)
class SourceScrape:
    """What samples of a process that reads cameras are read from."""

    sources: LiveSources
    version: str
    viewers: int


Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class MetricSpec(Generic[Read]):
    """One metric. `samples` gives pairs of label values, in the order of `labels`, and a value."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    remedy: str
    samples: Callable[[Read], Samples]
    labels: tuple[str, ...] = ()


def _one(value: Callable[[LiveWorker], float | Distribution]) -> Callable[[Scrape], Samples]:
    return lambda scrape: [(NONE, value(scrape.worker))]


def _each(value: Callable[[LiveWorker], Counter[str]], names: Iterable[str] = ()) -> Callable[[Scrape], Samples]:
    """Counts by a name. `names` are there from the beginning, at 0, or nobody would see a series rise to 1."""
    known = dict.fromkeys(map(str, names), 0)
    return lambda scrape: [((name,), count) for name, count in {**known, **value(scrape.worker)}.items()]


def _partitions(value: Callable[[PartitionProgress], float | None]) -> Callable[[Scrape], Samples]:
    def samples(scrape: Scrape) -> Iterator[tuple[Labels, float]]:
        progress = scrape.worker.health.progress
        for tp, partition in progress.partitions.items() if progress else ():
            if (found := value(partition)) is not None:
                yield (str(tp.partition),), found

    return samples


def _lag_seconds(scrape: Scrape) -> Iterator[tuple[Labels, float]]:
    """The next message is no older than the newest that was read. While reading pauses, nobody hears of newer ones."""
    progress = scrape.worker.health.progress
    for tp, partition in progress.partitions.items() if progress else ():
        if partition.lag == 0 and not (partition.paused or (progress and progress.paused)):
            yield (str(tp.partition),), 0.0
        elif partition.lag is not None and partition.read_ms is not None:
            yield (str(tp.partition),), max(0.0, scrape.worker.now_s - partition.read_ms / 1e3)


def _outages(scrape: Scrape) -> Iterator[tuple[Labels, float]]:
    now_s = scrape.worker.now_s
    for who in PARTIES:
        outage = scrape.worker.health.outage(who, now_s)
        yield (who.removeprefix("the "),), now_s - outage.since_s if outage else 0.0


def _full(worker: LiveWorker) -> float:
    outage = worker.health.outage("the store", worker.now_s)
    return float(outage is not None and outage.is_full)


def _streams(value: Callable[[LiveCamera], float | None]) -> Callable[[Scrape], Samples]:
    def samples(scrape: Scrape) -> Iterator[tuple[Labels, float]]:
        for camera in _largest(scrape):
            if (found := value(camera)) is not None:
                yield (camera.stream_id, str(camera.tp.partition)), found

    return samples


def _largest(scrape: Scrape) -> list[LiveCamera]:
    """Those with most images. Names come from strangers, and each would be a series for ever."""
    return nlargest(scrape.max_streams, scrape.worker.cameras.values(), key=lambda camera: camera.images)


def _progress(value: Callable[[LiveWorker], float]) -> Callable[[Scrape], Samples]:
    """Of what is known once the loop has turned."""
    return lambda scrape: [(NONE, value(scrape.worker))] if scrape.worker.health.progress else []


def _states(scrape: Scrape) -> Samples:
    return [((str(state),), count) for state, count in scrape.worker.states().items()]


def _build(scrape: Scrape) -> Samples:
    return [((scrape.version,), 1.0)]


def _model(scrape: Scrape) -> Samples:
    facts: Mapping[str, str] = scrape.worker.facts
    return (
        [(tuple(facts.get(name, "") for name in ("fingerprint", "card", "device", "precision")), 1.0)] if facts else []
    )


def _pairs(scrape: Scrape) -> Samples:
    progress = scrape.worker.health.progress
    return [((number, state), 1.0) for number, (state, _) in progress.pairs.states.items()] if progress else []


def _shadow(value: Callable[[PairsProgress], float]) -> Callable[[Scrape], Samples]:
    return _progress(lambda w: value(w.health.progress.pairs) if w.health.progress else 0.0)


def _held(worker: LiveWorker) -> float:
    return worker.health.progress.held_bytes if worker.health.progress else 0


def _in_flight(worker: LiveWorker) -> float:
    return worker.health.progress.results_bytes if worker.health.progress else 0


def _limit(worker: LiveWorker) -> float:
    return worker.health.progress.limit_bytes if worker.health.progress else 0


def _recovering(worker: LiveWorker) -> float:
    return len(worker.health.progress.recovering) if worker.health.progress else 0


def _owned(worker: LiveWorker) -> float:
    return len(worker.health.progress.partitions) if worker.health.progress else 0


def _paused(worker: LiveWorker) -> float:
    return float(worker.health.progress.paused) if worker.health.progress else 0.0


_STREAM = ("stream", "partition")

METRICS: tuple[MetricSpec[Scrape], ...] = (
    # what is served
    MetricSpec(
        "adawise_images_total",
        "counter",
        "Images that were classified.",
        "At 0 with lag: see adawise_ready and /readyz.",
        _one(lambda w: w.counts.images),
    ),
    MetricSpec(
        "adawise_forwards_total",
        "counter",
        "Images that passed the image tower. Its rate over that of adawise_images_total is FE: plain CLIP has 1.",
        "FE that stays above 2: images change faster than the method settles; a higher search.price spends less.",
        _one(lambda w: w.counts.forwards),
    ),
    MetricSpec(
        "adawise_batches_total",
        "counter",
        "Batches that were adapted, by why alternatives were tried.",
        "Many of too_few_images: cameras send too seldom for batch.max_age_s. Any of not_finite: see the card.",
        _each(lambda w: w.counts.batches),
        ("trigger",),
    ),
    MetricSpec(
        "adawise_state_resets_total",
        "counter",
        "Streams that began to learn anew, by why.",
        "crowded: raise limits.streams, or look who sends under new names. jump: what cameras see changed at once.",
        _each(lambda w: w.counts.resets, ["crowded", "jump"]),
        ("reason",),
    ),
    MetricSpec(
        "adawise_prediction_latency_seconds",
        "histogram",
        "From the broker's timestamp of an image to its prediction.",
        "Beyond batch.max_age_s with lag: too few workers. Without lag: smaller batch.images or batch.max_age_s.",
        _one(lambda w: w.counts.latency_s),
    ),
    MetricSpec(
        "adawise_batch_seconds",
        "histogram",
        "A batch's share of forwards and search.",
        "Longer than before: another process has the processor, or the device throttles.",
        _one(lambda w: w.counts.batch_s),
    ),
    # what is not
    MetricSpec(
        "adawise_rejected_total",
        "counter",
        "Images and messages that were rejected, by reason.",
        "Look the reason up in the reference; the rows and the dead letters name the producer.",
        _each(lambda w: w.counts.rejected, Reason),
        ("reason",),
    ),
    MetricSpec(
        "adawise_producer_mistakes_total",
        "counter",
        "Images that were taken although their message has a mistake, such as a bad time.",
        "The log's producer_mistaken names the stream and the mistake.",
        _one(lambda w: w.counts.mistakes),
    ),
    MetricSpec(
        "adawise_dead_letters_total",
        "counter",
        "Messages that were sent to the dead-letter topic.",
        "`adawise dlq` shows them.",
        _one(lambda w: w.counts.letters),
    ),
    MetricSpec(
        "adawise_results_total",
        "counter",
        "Rows that were told on the results topic, each time that they are. 0 without results.enabled.",
        "Behind adawise_images_total (early) or adawise_rows_total (committed): the broker does not keep up.",
        _one(lambda w: w.counts.told),
    ),
    MetricSpec(
        "adawise_lost_messages_total",
        "counter",
        "Offsets that will have no rows, by why.",
        "deleted: a longer retention.ms, or more workers. Others: see the reference of gaps.",
        _each(lambda w: w.counts.lost, Lost),
        ("reason",),
    ),
    # what is written
    MetricSpec(
        "adawise_segments_total",
        "counter",
        "Segments that this worker wrote.",
        "None for long, with rows that wait: see adawise_retries_total and the log.",
        _one(lambda w: w.counts.segments),
    ),
    MetricSpec(
        "adawise_rows_total",
        "counter",
        "Rows in them, those of rejected images among them.",
        "It follows adawise_images_total by sink.flush_age_s.",
        _one(lambda w: w.counts.rows),
    ),
    MetricSpec(
        "adawise_segment_bytes_total",
        "counter",
        "Bytes of them.",
        "What the store will have to hold; `adawise compact` makes fewer files of it.",
        _one(lambda w: w.counts.segment_bytes),
    ),
    MetricSpec(
        "adawise_segment_commit_seconds",
        "histogram",
        "How long the store took for a segment.",
        "Seconds: the store is slow, and reading will pause. Larger sink.flush_rows make fewer of them.",
        _one(lambda w: w.counts.commit_s),
    ),
    MetricSpec(
        "adawise_last_segment_timestamp_seconds",
        "gauge",
        "When the last segment was written; absent before the first.",
        "Old, with rows that wait: the store does not answer.",
        lambda scrape: [] if scrape.worker.committed_s is None else [(NONE, scrape.worker.committed_s)],
    ),
    MetricSpec(
        "adawise_races_lost_total",
        "counter",
        "Segments that another worker had written already.",
        "A few at a rebalance are in order. Steady ones: two groups or two copies of a worker share a root.",
        _one(lambda w: w.counts.races_lost),
    ),
    MetricSpec(
        "adawise_retries_total",
        "counter",
        "Tries that failed and are made again, by who did not answer.",
        "Nothing is lost. See to the broker or the store; the log's retry_scheduled (store_filled where there is no "
        "room) has its words.",
        _each(lambda w: w.counts.retries, [who.removeprefix("the ") for who in PARTIES]),
        ("of",),
    ),
    MetricSpec(
        "adawise_outage_seconds",
        "gauge",
        "Since when broker or store has failed without a success between; 0 while it answers.",
        "Nothing is lost while it lasts, if the topic's retention is longer. /readyz and the log say what failed.",
        _outages,
        ("of",),
    ),
    MetricSpec(
        "adawise_store_full",
        "gauge",
        "1 while the output has no room.",
        "Make room: it goes on by itself. `adawise retain` removes what is old.",
        _one(_full),
    ),
    MetricSpec(
        "adawise_results_waiting",
        "gauge",
        "Rows that are to be told on the results topic, and the broker has not taken.",
        "Growing: the broker is slow or refuses. At four times sink.flush_rows reading pauses.",
        _partitions(lambda p: p.untold),
        ("partition",),
    ),
    MetricSpec(
        "adawise_results_in_flight_bytes",
        "gauge",
        "Of results that were sent to the broker, and are not acknowledged.",
        "At 8 MiB there is no room, and adawise_results_waiting grows: see there.",
        _progress(_in_flight),
    ),
    # the group
    MetricSpec(
        "adawise_partitions",
        "gauge",
        "Partitions that this worker reads; 0 in reserve.",
        "The sum over workers is less than the topic has: see which stands in adawise_partition_stands.",
        _progress(_owned),
    ),
    MetricSpec(
        "adawise_partitions_recovering",
        "gauge",
        "Partitions that are this worker's and not read yet.",
        "For minutes: their log was rewritten or the store is away; see the log.",
        _progress(_recovering),
    ),
    MetricSpec(
        "adawise_partitions_gained_total",
        "counter",
        "Partitions that were taken over.",
        "Steady growth: workers are expelled; see kafka.max_poll_interval_ms.",
        _one(lambda w: w.counts.gained),
    ),
    MetricSpec(
        "adawise_partitions_lost_total",
        "counter",
        "Partitions that went to others.",
        "As adawise_partitions_gained_total.",
        _one(lambda w: w.counts.parted),
    ),
    MetricSpec(
        "adawise_lag_messages",
        "gauge",
        "Messages of the partition that were not read yet.",
        "Growing: more workers, up to the number of partitions, or a lower search.price.",
        _partitions(lambda p: p.lag),
        ("partition",),
    ),
    MetricSpec(
        "adawise_lag_seconds",
        "gauge",
        "Age of the newest message that was read, where there are newer ones or reading pauses, else 0. Absent before.",
        "Growing: as adawise_lag_messages, which stands while reading pauses. At retention.ms images are lost.",
        _lag_seconds,
        ("partition",),
    ),
    MetricSpec(
        "adawise_pending_messages",
        "gauge",
        "Messages that were read and whose batch is not complete.",
        "Up to batch.images for each camera. They wait batch.max_age_s at most.",
        _partitions(lambda p: p.pending),
        ("partition",),
    ),
    MetricSpec(
        "adawise_uncommitted_rows",
        "gauge",
        "Rows that are complete and not in a segment yet.",
        "Beyond sink.flush_rows: the store does not keep up.",
        _partitions(lambda p: p.rows),
        ("partition",),
    ),
    MetricSpec(
        "adawise_partition_stands",
        "gauge",
        "1 while what is next in the partition cannot be read.",
        "The log says why: a damaged batch, a codec. kafka.on_unreadable=skip goes on without it.",
        _partitions(lambda p: float(p.stands)),
        ("partition",),
    ),
    MetricSpec(
        "adawise_partition_paused",
        "gauge",
        "1 while the partition is not read because enough of it is in memory.",
        "Mostly 1 with lag: the model is the bottleneck, which is in order until the lag grows.",
        _partitions(lambda p: float(p.paused)),
        ("partition",),
    ),
    # memory
    MetricSpec(
        "adawise_held_bytes",
        "gauge",
        "Of messages and decoded images in memory.",
        "At adawise_held_bytes_limit reading pauses, which is in order.",
        _progress(_held),
    ),
    MetricSpec(
        "adawise_held_bytes_limit",
        "gauge",
        "What they may take: limits.inflight_mib.",
        "Raise it if batches are closed early.",
        _progress(_limit),
    ),
    MetricSpec(
        "adawise_backpressure_paused",
        "gauge",
        "1 while nothing is read because rows or the recording wait to be written.",
        "The store or the recording's store is too slow or away.",
        _progress(_paused),
    ),
    MetricSpec(
        "adawise_batches_closed_early_total",
        "counter",
        "Batches that were closed before they were full, for lack of memory.",
        "Raise limits.inflight_mib, or lower batch.images.",
        _one(lambda w: w.counts.closed_early),
    ),
    MetricSpec(
        "adawise_streams_evicted_total",
        "counter",
        "Streams that had to leave their place, and begin anew when they come back.",
        "Raise limits.streams, spread streams over more partitions, or look who sends under new names.",
        _one(lambda w: w.counts.evicted),
    ),
    # cameras
    MetricSpec(
        "adawise_cameras",
        "gauge",
        "Cameras of this worker by state, as the live page has them.",
        "Alert on failing, rejected and silent; the page says which and why.",
        _states,
        ("state",),
    ),
    MetricSpec(
        "adawise_stream_images_total",
        "counter",
        "Images of the stream that were classified since this worker has it. Of http.max_streams streams.",
        "A rate of 0: the camera is silent.",
        _streams(lambda c: c.images),
        _STREAM,
    ),
    MetricSpec(
        "adawise_stream_rejected_total",
        "counter",
        "Images of the stream that were rejected. Of the same streams.",
        "See adawise_rejected_total.",
        _streams(lambda c: c.rejected),
        _STREAM,
    ),
    MetricSpec(
        "adawise_stream_alpha",
        "gauge",
        "Alpha of the stream's last batch: 0 zero-shot, 1 fine-tuned. Of the same streams.",
        "It moved and stayed: the camera sees something else; `adawise drift` tells what.",
        _streams(lambda c: c.alpha),
        _STREAM,
    ),
    MetricSpec(
        "adawise_stream_forward_equivalents",
        "gauge",
        "FE of the stream over the last minutes. Of the same streams.",
        "Above 2 for long: it never settles.",
        _streams(lambda c: c.forward_equivalents),
        _STREAM,
    ),
    MetricSpec(
        "adawise_stream_last_image_timestamp_seconds",
        "gauge",
        "When the stream's last image was classified or rejected. Of the same streams.",
        "Old: the camera is silent, or its partition lags.",
        _streams(lambda c: c.seen_s),
        _STREAM,
    ),
    MetricSpec(
        "adawise_streams_without_series",
        "gauge",
        "Cameras of this worker beyond http.max_streams, which have no series of their own.",
        "Raise http.max_streams if Prometheus can take it, or use the live page.",
        lambda scrape: [(NONE, max(0, len(scrape.worker.cameras) - scrape.max_streams))],
    ),
    # the worker itself
    MetricSpec(
        "adawise_ready",
        "gauge",
        "1 if /readyz says ready.",
        "/readyz says why not.",
        _one(lambda w: float(w.health.ready(w.now_s).ok)),
    ),
    MetricSpec(
        "adawise_seconds_since_step",
        "gauge",
        "Since the last sign of life of the worker's loop.",
        "A round of forwards takes seconds. Beyond http.stuck_after_s, /livez asks for a restart.",
        _one(lambda w: max(0.0, w.now_s - w.health.beat_s)),
    ),
    MetricSpec(
        "adawise_clock_seconds",
        "gauge",
        "The machine's clock when it was scraped, as Unix time.",
        "Far from Prometheus' own: see to NTP; times of predictions and silence are wrong by as much.",
        lambda scrape: [(NONE, scrape.clock_s)],
    ),
    MetricSpec(
        "adawise_build_info",
        "gauge",
        "Always 1; the version.",
        "Workers of one group differ for long: a rollout is stuck.",
        _build,
        ("version",),
    ),
    MetricSpec(
        "adawise_model_info",
        "gauge",
        "Always 1; the pair's fingerprint, its card, device and number format. Absent before it is loaded.",
        "Workers of one root differ: one has other checkpoints or another card.",
        _model,
        ("fingerprint", "card", "device", "precision"),
    ),
    MetricSpec(
        "adawise_pair_state",
        "gauge",
        "Always 1; the pairs that this worker knows of, by number: serves, ready, loading, failed or former.",
        "failed: `adawise pair list` says why. Workers differ for long: one cannot load what is asked for.",
        _pairs,
        ("pair", "state"),
    ),
    MetricSpec(
        "adawise_pair_switches_total",
        "counter",
        "Partitions that came to be served by another pair.",
        "Only `adawise pair switch` and `rollback` do that, and partitions of a worker that lagged behind.",
        _one(lambda w: w.counts.switched),
    ),
    MetricSpec(
        "adawise_shadow_images",
        "gauge",
        "Images that the staged pair has classified beside the serving one.",
        "It stays: see adawise_shadow_late_batches, and `adawise pair list`.",
        _shadow(lambda p: p.shadow_images),
    ),
    MetricSpec(
        "adawise_shadow_agreed_images",
        "gauge",
        "Of these, the images that it gave the served label.",
        "Few: look at the worst cameras in `adawise pair list` before `adawise pair switch`.",
        _shadow(lambda p: p.shadow_agreed),
    ),
    MetricSpec(
        "adawise_shadow_late_batches",
        "gauge",
        "Batches that it came to when their segment was written already, or never.",
        "Many: there is no spare time; raise pairs.shadow_share, or stage at a quieter hour.",
        _shadow(lambda p: p.shadow_late),
    ),
    MetricSpec(
        "adawise_page_viewers",
        "gauge",
        "Browsers that look at the live page.",
        "At most 32; more are asked to wait.",
        lambda scrape: [(NONE, scrape.viewers)],
    ),
    MetricSpec(
        "adawise_observations_dropped_total",
        "counter",
        "Events that page and metrics do not know of, because they came too fast.",
        "Only a flood of rejected images does that. Counts are too low by as many; rows are not.",
        lambda scrape: [(NONE, scrape.dropped)],
    ),
)


def _sources(value: Callable[[LiveSources], float]) -> Callable[[SourceScrape], Samples]:
    return lambda scrape: [(NONE, value(scrape.sources))]


def _each_source(value: Callable[[SourceCamera, float], float | None]) -> Callable[[SourceScrape], Samples]:
    """Cameras come from a file of ours: there are as many series as it names."""

    def samples(scrape: SourceScrape) -> Iterator[tuple[Labels, float]]:
        for camera in scrape.sources.cameras.values():
            if (found := value(camera, scrape.sources.now_s)) is not None:
                yield (camera.stream_id,), found

    return samples


def _by_reason(
    value: Callable[[SourceCamera], Counter[str]], reasons: tuple[str, ...]
) -> Callable[[SourceScrape], Samples]:
    def samples(scrape: SourceScrape) -> Iterator[tuple[Labels, float]]:
        for camera in scrape.sources.cameras.values():
            for reason in reasons:
                yield (camera.stream_id, reason), value(camera)[reason]

    return samples


_CAMERA = ("camera",)

CAMERA_METRICS: tuple[MetricSpec[SourceScrape], ...] = (
    MetricSpec(
        "adawise_camera_up",
        "gauge",
        "1 while the camera's stream is open.",
        "0: the page and the log's camera_failed say why; `adawise cameras FILE --check` tries each once.",
        _each_source(lambda camera, _: float(camera.is_open)),
        _CAMERA,
    ),
    MetricSpec(
        "adawise_camera_frames_total",
        "counter",
        "Frames that were handed to the broker.",
        "Its rate is below the camera's `rate`: it sends fewer, or they are dropped.",
        _each_source(lambda camera, _: camera.sent),
        _CAMERA,
    ),
    MetricSpec(
        "adawise_camera_bytes_total",
        "counter",
        "Bytes of them.",
        "What the topic has to hold; a smaller `longest`, `rate` or `quality` makes it less.",
        _each_source(lambda camera, _: camera.sent_bytes),
        _CAMERA,
    ),
    MetricSpec(
        "adawise_camera_dropped_total",
        "counter",
        "Frames that were not sent, by why: behind (the broker), damaged, too_large.",
        "behind: the broker is slow or away, or when_behind should be wait. damaged: the network loses packets; use "
        "transport tcp. too_large: a smaller `longest` or `quality`, or a larger max.message.bytes of the topic.",
        _by_reason(lambda camera: camera.dropped, DROP_REASONS),
        ("camera", "reason"),
    ),
    MetricSpec(
        "adawise_camera_connects_total",
        "counter",
        "Times that the camera was connected to.",
        "Growing: the network or the camera breaks again and again; the log says how.",
        _each_source(lambda camera, _: camera.connects),
        _CAMERA,
    ),
    MetricSpec(
        "adawise_camera_failures_total",
        "counter",
        "Connections that ended, by kind: failed, or refused until somebody mends something.",
        "refused: credentials, address or device are wrong; the log's camera_failed names the remedy.",
        _by_reason(lambda camera: camera.failures, FAILURES),
        ("camera", "kind"),
    ),
    MetricSpec(
        "adawise_camera_frozen_seconds",
        "gauge",
        "For how long the camera has sent one picture; 0 below frozen_after_s.",
        "Restart the camera: its sensor or its encoder hangs. A still scene without noise looks the same.",
        _each_source(lambda camera, now_s: camera.frozen_s(now_s)),
        _CAMERA,
    ),
    MetricSpec(
        "adawise_camera_last_frame_timestamp_seconds",
        "gauge",
        "When the camera's last frame came; absent before the first.",
        "Old: the camera is silent, or failing.",
        _each_source(lambda camera, _: camera.seen_s),
        _CAMERA,
    ),
    MetricSpec(
        "adawise_camera_delay_seconds",
        "gauge",
        "From when the last frame was taken, by the clock that its header names, until it came.",
        "Seconds: the camera or the network holds frames back, or its clock is behind.",
        _each_source(lambda camera, _: None if camera.seen_s is None else camera.delay_s),
        _CAMERA,
    ),
    MetricSpec(
        "adawise_cameras",
        "gauge",
        "Cameras by state, as the live page has them.",
        "Alert on failing, rejected, silent and frozen; the page says which and why.",
        lambda scrape: [((str(state),), count) for state, count in scrape.sources.states().items()],
        ("state",),
    ),
    MetricSpec(
        "adawise_frames_waiting",
        "gauge",
        "Frames in memory that wait for the broker.",
        "Growing: the broker is slow or away.",
        _sources(lambda sources: sources.waiting),
    ),
    MetricSpec(
        "adawise_retries_total",
        "counter",
        "Tries that failed and are made again, by who did not answer.",
        "See to the broker; the log's retry_scheduled has its words.",
        lambda scrape: [(("broker",), scrape.sources.retries["broker"])],
        ("of",),
    ),
    MetricSpec(
        "adawise_ready",
        "gauge",
        "1 if /readyz says ready.",
        "/readyz says why not.",
        _sources(lambda sources: float(sources.health.ready(sources.now_s).ok)),
    ),
    MetricSpec(
        "adawise_seconds_since_step",
        "gauge",
        "Since the loop that sends has turned.",
        "Beyond http.stuck_after_s, /livez asks for a restart.",
        _sources(lambda sources: max(0.0, sources.now_s - sources.health.beat_s)),
    ),
    MetricSpec(
        "adawise_build_info",
        "gauge",
        "Always 1; the version.",
        "Processes differ for long: a rollout is stuck.",
        lambda scrape: [((scrape.version,), 1.0)],
        ("version",),
    ),
    MetricSpec(
        "adawise_page_viewers",
        "gauge",
        "Browsers that look at the live page.",
        "At most 32; more are asked to wait.",
        lambda scrape: [(NONE, scrape.viewers)],
    ),
)
