"""A replay: the worker on a recording, or on what a topic holds. The command `replay` shows how it proceeds.

Torch is loaded after the options were checked, because it takes seconds.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from typing_extensions import override

from adawise.app.kafka import kafka_source
from adawise.app.signals import StopRequest
from adawise.console import Lines, Progress
from adawise.errors import AdawiseError, SettingsError
from adawise.ports import Source
from adawise.publish.dead_letters.sink import NoDeadLetters
from adawise.recording.recorder import Streams
from adawise.recording.source import Order, RecordingSource
from adawise.records import BatchEnds, BatchTrace, TopicPartition
from adawise.replay.batches import digest_of, read_batch_ends
from adawise.replay.bounded import BoundedSource, Range, Whole, whole_of
from adawise.replay.claim import Claim, claim, claimed
from adawise.replay.paced import PacedSource
from adawise.replay.plan import read_plan, stream_patterns
from adawise.replay.shards import Method, Shard, claim_method, open_shard, read_method
from adawise.replay.state import RecordedState, begin_chains, recorded_states, root_of
from adawise.settings import DecodeSettings, ModelSettings, Settings
from adawise.sink.owner import Owner
from adawise.sink.walk import newest
from adawise.store.store import Store, open_store
from adawise.text import counted
from adawise.worker.events import (
    BatchServed,
    Event,
    FrameRejected,
    PartitionLost,
    ProducerMistaken,
    Stepped,
    WorkerProgress,
)
from adawise.worker.observer import LogObserver

if TYPE_CHECKING:
    from adawise.app.model import ModelPair

_POLL_RECORDS = 512  # messages a poll
_NEW_FOLDER = "or use a new folder"

_log = structlog.get_logger("worker")


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """A request for a replay.

    Attributes:
        settings: the settings of the worker.
        output: a new folder or URL for predictions and traces; a replay that was stopped goes on in its own.
        recording: the folder or URL of the recording; None for the topic of the settings.
        topic: replaces the topic of the settings.
        from_time: the moment, by the broker's timestamps, before which messages are left out.
        until: the moment from which messages are left out.
        streams: patterns of the streams to replay; None for all.
        state_of: a segment, or ROOT@TIME, whose adaptation states the replay goes on from.
        pairs_of: the root by whose pairs each partition is served.
        batches_of: the root by whose batches batches end.
        speed: paces by the recorded timestamps; None for as fast as the model allows.
        results_to: the topic to which results are published, if any.
        skip_forgotten: leave out recorded messages without images.
        shard: the number of a shard of the plan in `output`, which says what is replayed; None for no plan.
        order: how the partitions of a recording interleave.
        seed: the seed of a random order.
    """

    settings: Settings
    output: str
    recording: str | None = None
    topic: str | None = None
    from_time: datetime | None = None
    until: datetime | None = None
    streams: str | None = None
    state_of: str | None = None
    pairs_of: str | None = None
    batches_of: str | None = None
    speed: float | None = None
    results_to: str | None = None
    skip_forgotten: bool = False
    shard: int | None = None
    order: Order = "timestamp"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The outcome of a replay.

    Attributes:
        source: the name of what was replayed.
        images: the images that were served.
        rejected: the images and messages that were rejected.
        forward_equivalents: the mean over the images; 1 for plain CLIP.
        stopped: True if it was stopped before the end: the same request goes on from there.
        ends_streams: False if batches that are open at the end wait for images behind it.
        output: where rows and traces are; of a shard, its root.
        passed_by: the messages that other shards serve.
        closed_early: the batches that were closed early for lack of memory.
        late: the cameras of a shard whose backlog came late (`adawise.worker.stream_states`).
    """

    source: str
    images: int
    rejected: int
    forward_equivalents: float
    stopped: bool
    ends_streams: bool
    output: str
    passed_by: int = 0
    closed_early: int = 0
    late: int = 0


def _unshown(total: int) -> AbstractContextManager[Progress]:
    return nullcontext(Lines("replayed", total, "messages", write=lambda _: None))


def replay(
    request: ReplayRequest,
    *,
    stop: StopRequest | None = None,
    shown: Callable[[int], AbstractContextManager[Progress]] = _unshown,
    load: Callable[[ModelSettings, DecodeSettings], ModelPair] | None = None,
) -> ReplayResult:
    """Run the worker on a recording, or on what a topic holds now. Nothing is printed.

    Args:
        request: what to replay.
        stop: ends the replay in order.
        shown: takes the number of messages, and returns the progress that is advanced by them.
        load: loads the pair, or returns one that is loaded; None: `load_model`.

    Raises:
        SettingsError: the output is of something else, or what was requested cannot be done.
        SourceError, BrokerUnavailable: the recording or the topic cannot be read.
        ChainError, StoreUnavailable: the output is damaged, or does not answer.
        KeyboardInterrupt: it was stopped before it began.
    """
    stop = stop or StopRequest(lambda: None)
    settings = _settings(request)
    with ExitStack() as stack:
        with stop.interrupts():
            shard = _shard(request)
            request = request if shard is None else _of_shard(request, shard)
            output = request.output
            store = open_store(output)
            earlier = claimed(store, output)
            whole = stack.enter_context(_opened(request, settings))
            states = recorded_states(request.state_of, whole) if request.state_of else {}
            if shard is not None:
                shard.expect_same(whole)
            wanted = _wanted(request, whole, states, earlier, shard)
            # Shards share one method, so that what serves a partition is found for all of the plan in each of them.
            method_part = wanted.part if shard is None else shard.stored.plan.parts
            batch_ends = _batch_ends(request, method_part, whole)
            if request.results_to in (whole.topic, settings.kafka.topic):
                raise SettingsError(
                    f"--results-to {request.results_to}: it is a topic whose messages are read as images; name another"
                )
        from adawise.app.model import config_fingerprint, load_model
        from adawise.app.pairs import planned_pairs
        from adawise.app.worker import WorkerParts, describe, make_worker
        from adawise.clip.classifier import digest

        begun = store if earlier is not None else None
        settings = _in_recorded_precision(request, settings, begun, whole, states, shard)
        model = (load or load_model)(settings.model, settings.decode)
        _log.info("model_loaded", **describe(settings, model))
        used, planned = config_fingerprint(settings, model), None
        if request.pairs_of is not None:
            planned, plan = planned_pairs(
                settings, model, request.pairs_of, method_part, ends_streams=wanted.ends_streams
            )
            used = digest(f"{used} {plan}")
        fingerprints = {"model_fingerprint": model.classifier.fingerprint, "config_fingerprint": used}
        if batch_ends is not None:
            fingerprints["batches"] = digest_of(batch_ends)
        if shard is not None:
            _claim_method(shard, settings, model, fingerprints)
        ours = claim(store, output, wanted.model_copy(update=fingerprints))
        _log_differences(ours, whole, states, (model.classifier.fingerprint, used))
        writer = f"{socket.gethostname()}:{os.getpid()}"
        begin_chains(store, states, whole.identity, writer, has_prior=settings.scene.has_prior)
        left = {tp: (max(begin, _head(store, tp, begin)), until) for tp, (begin, until) in ours.part.items()}
        total = sum(until - begin for begin, until in left.values())
        observer = _ReplayObserver(stack.enter_context(shown(total)), left)
        parts = WorkerParts(
            source=_source(whole.source, ours, request.speed),
            root=output,
            owner=Owner(whole.identity.cluster_id, whole.topic, "", "replay"),
            dead_letters=NoDeadLetters(),
            observer=observer,
            should_stop=stop,
            ends_streams=ours.ends_streams,
            results_to=request.results_to,
            partitions=whole.identity.partitions,
            pairs=None if planned is None else lambda _store, _name: planned,
            batch_ends=batch_ends,
            share=None if shard is None else shard.share,
        )
        make_worker(settings, model, parts).run()
        if not (stopped := stop()):
            observer.ended()
    passed = observer.passed / max(observer.images, 1)
    progress = observer.progress
    parts_of = () if progress is None else progress.partitions.values()
    return ReplayResult(
        source=whole.name,
        images=observer.images,
        rejected=observer.rejected,
        forward_equivalents=passed,
        stopped=stopped,
        ends_streams=ours.ends_streams,
        output=output,
        passed_by=sum(each.passed_by for each in parts_of),
        closed_early=0 if progress is None else progress.batches_closed_early,
        late=sum(each.late for each in parts_of),
    )


def _shard(request: ReplayRequest) -> Shard | None:
    """Return the shard that is requested, None for a whole replay.

    Raises:
        SettingsError: there is no such shard, a plan is in the folder of a whole replay, or a shard cannot do what is
            requested.
    """
    if request.shard is None:
        if (stored := read_plan(request.output)) is not None:
            count = counted(len(stored.plan.shards), "shard")
            raise SettingsError(f"-o {request.output} holds the plan of {count}; name one with --shard, {_NEW_FOLDER}")
        return None
    if request.recording is None or request.state_of is not None or request.speed is not None:
        raise SettingsError("a shard is of a whole recording, at full speed: leave out topic, state_of and speed")
    return open_shard(request.output, request.shard)


def _of_shard(request: ReplayRequest, shard: Shard) -> ReplayRequest:
    plan = shard.stored.plan
    streams = None if plan.streams is None else ",".join(plan.streams)
    return replace(request, output=shard.root, streams=streams, skip_forgotten=plan.skip_forgotten)


def _claim_method(shard: Shard, settings: Settings, model: ModelPair, fingerprints: Mapping[str, str]) -> None:
    from adawise.app.model import hardware

    precision = settings.model.precision
    assert precision != "auto"  # it was chosen
    method = Method(
        plan=shard.stored.digest,
        model_fingerprint=fingerprints["model_fingerprint"],
        config_fingerprint=fingerprints["config_fingerprint"],
        batches=fingerprints.get("batches", ""),
        precision=precision,
        hardware=hardware(model),
    )
    claim_method(shard.stored.output, method)


def _settings(request: ReplayRequest) -> Settings:
    settings, output = request.settings, request.output
    if request.topic is not None:
        settings = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"topic": request.topic})})
    if Path(output).resolve() == Path(settings.sink.root).resolve():
        raise SettingsError(f"-o {output} is sink.root, where the live worker writes; a replay needs a separate folder")
    return settings


@contextmanager
def _opened(request: ReplayRequest, settings: Settings) -> Iterator[Whole]:
    """Open the recording, or the topic without a group and without a trace on the broker."""
    source: Source
    if request.recording is None:
        name, topic = f"topic {settings.kafka.topic}", settings.kafka.topic
        source = kafka_source(settings.kafka, group=False)
    else:
        source = RecordingSource(
            request.recording,
            order=request.order,
            seed=request.seed,
            max_poll_records=_POLL_RECORDS,
            forgotten="skip" if request.skip_forgotten else "fail",
        )
        name, topic = request.recording, source.topic
    with closing(source):
        yield whole_of(name, source, topic, request.from_time, request.until)


def _wanted(
    request: ReplayRequest,
    whole: Whole,
    states: Mapping[TopicPartition, RecordedState],
    earlier: Claim | None,
    shard: Shard | None,
) -> Claim:
    """Return the claim of this replay, whose fingerprints are not known yet."""
    begun = {tp: (state.low_water, max(state.footer.next, whole.part[tp][1])) for tp, state in states.items()}
    is_segment = request.state_of is not None and request.state_of.endswith(".parquet")
    ranges, ends_streams = begun if begun and is_segment else {**whole.part, **begun}, whole.ends_streams
    if shard is not None:
        ranges, ends_streams = {**shard.parts}, shard.stored.plan.ends_streams
    elif earlier is not None and earlier.topic == whole.topic:
        # A recording, a topic and a root grow; the replay goes on within what it claimed.
        ranges, ends_streams = earlier.part, earlier.ends_streams
    return Claim(
        topic=whole.topic,
        cluster_id=whole.identity.cluster_id,
        topic_id=whole.identity.topic_id,
        ranges={str(tp.partition): between for tp, between in ranges.items()},
        ends_streams=ends_streams,
        states_of={str(tp.partition): state.name for tp, state in states.items()},
        streams=stream_patterns(request.streams),
        plan="" if shard is None else shard.stored.digest,
        shard=request.shard,
        shards=None if shard is None else len(shard.stored.plan.shards),
    )


def _in_recorded_precision(
    request: ReplayRequest,
    settings: Settings,
    begun: Store | None,
    whole: Whole,
    states: Mapping[TopicPartition, RecordedState],
    shard: Shard | None,
) -> Settings:
    """Return the settings with the number format in which the images were served before, if `auto` is set.

    It is that of this replay's first run, whose output is `begun`, or of the shard that began first; or else of the
    states, of the same part in the other roots that the request names, or in `sink.root` as far as it has these
    partitions.
    """
    if settings.model.precision != "auto":
        return settings
    from adawise.app.precision import (
        RootPrecision,
        choose_precision,
        first_known,
        precision_of_parts,
        precision_of_segments,
    )

    def recorded() -> Iterator[RootPrecision]:
        if begun is not None:
            yield precision_of_parts(request.output, begun, whole.part)
        if shard is not None and (method := read_method(open_store(shard.stored.output))) is not None:
            yield RootPrecision(shard.stored.output, method.precision, is_begun=True)
        if request.state_of is not None:
            root = root_of(request.state_of)
            yield precision_of_segments(root, open_store(root), [state.footer for state in states.values()])
        for root in filter(None, (request.pairs_of, request.batches_of)):
            yield precision_of_parts(root, open_store(root), whole.part)
        try:
            yield precision_of_parts(settings.sink.root, open_store(settings.sink.root), whole.part)
        except AdawiseError as error:  # a replay needs no access to it
            note = "model.precision is auto, and what the worker's output was served in is not known"
            _log.warning("precision_not_found", root=settings.sink.root, error=str(error), note=note)

    choice = choose_precision(settings.model, kept := first_known(recorded()))
    choice.log(kept.root)
    return settings.model_copy(update={"model": choice.model})


def _batch_ends(request: ReplayRequest, ranges: Mapping[TopicPartition, Range], whole: Whole) -> BatchEnds | None:
    if request.batches_of is None:
        return None
    ends, lacking = read_batch_ends(request.batches_of, ranges, whole.identity)
    if lacking:
        _log.warning(
            "batches_not_covered",
            partitions=[str(tp) for tp in lacking],
            note=f"{request.batches_of} lacks their first batches; these end by batch.* and the timestamps",
        )
    return ends


def _log_differences(
    ours: Claim, whole: Whole, states: Mapping[TopicPartition, RecordedState], fingerprints: tuple[str, str]
) -> None:
    if not states and not ours.plan and ours.part != whole.part:
        note = "the part that its first run began is replayed; use a new folder for another part"
        _log.warning("replay_continued", note=note)
    written_by = {(state.footer.model_fingerprint, state.footer.config_fingerprint) for state in states.values()}
    if written_by - {fingerprints}:
        note = "the states were written with other models or settings; streams that they do not fit start anew"
        _log.warning("states_not_taken", note=note)


def _head(store: Store, tp: TopicPartition, begin: int) -> int:
    """Return the offset at which the chain of an output goes on; `begin` if there is none yet."""
    footer = newest(store, tp)
    return begin if footer is None else footer.next


def _source(source: Source, ours: Claim, speed: float | None) -> Source:
    wanted = Streams(None if ours.streams is None else ",".join(ours.streams))
    bounded = BoundedSource(source, ours.part, ends_streams=ours.ends_streams, wants=wanted.has)
    return bounded if speed is None else PacedSource(bounded, speed=speed)


class _ReplayObserver(LogObserver):
    """An observer that counts for the progress and the result, beside the log."""

    def __init__(self, bar: Progress, left: Mapping[TopicPartition, Range]) -> None:
        super().__init__()
        self._bar = bar
        self._left = left
        self._at = {tp: begin for tp, (begin, _) in left.items()}
        self.images = self.rejected = 0
        self.passed = 0.0
        self._progress: Callable[[], WorkerProgress] | None = None

    @property
    def progress(self) -> WorkerProgress | None:
        """The progress of the worker after its last step; None if it made none."""
        return None if self._progress is None else self._progress()

    @override
    def observe(self, event: Event) -> None:
        """Log the event, unless it was logged when it was live.

        The loss of a partition is not logged: here it is only the end of the recorded messages.
        """
        match event:
            case PartitionLost() | ProducerMistaken():
                pass
            case FrameRejected():
                self.rejected += 1
            case Stepped():
                self._progress = event.progress
                super().observe(event)
            case BatchServed():
                super().observe(event)
                self._count(event.trace)
            case _:
                super().observe(event)

    def _count(self, trace: BatchTrace) -> None:
        self.images += trace.images
        self.passed += trace.forward_equivalents * trace.images
        self._advance(TopicPartition(trace.topic, trace.partition), trace.last_offset + 1)
        self._bar.note(f"FE {self.passed / self.images:.2f}")

    def ended(self) -> None:
        """Advance the progress to its end: messages without images are done, too."""
        for tp, (_, until) in self._left.items():
            self._advance(tp, until)

    def _advance(self, tp: TopicPartition, offset: int) -> None:
        if offset > self._at[tp]:
            self._bar.advance(offset - self._at[tp])
            self._at[tp] = offset
