"""The work of `adawise replay`: run the worker on a recording, or on what a topic holds."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from typing_extensions import override

from adawise.app.signals import INTERRUPTED, stop_signals
from adawise.cli.replay.part import Whole, opened_recording, opened_topic
from adawise.cli.replay.state import RecordedState, begin_chains, recorded_states
from adawise.console import Progress, progress
from adawise.errors import SettingsError
from adawise.ports import Source
from adawise.publish.dead_letters.sink import NoDeadLetters
from adawise.recording.files import Forgotten
from adawise.recording.source import Order
from adawise.recording.streams import Streams
from adawise.records import BatchEnds, BatchTrace, TopicPartition
from adawise.replay.batches import digest_of, read_batch_ends
from adawise.replay.bounded import BoundedSource, Range
from adawise.replay.claim import Claim, claim, claimed
from adawise.replay.paced import PacedSource
from adawise.settings import Settings
from adawise.sink.owner import Owner
from adawise.sink.walk import newest
from adawise.store.store import Store, open_store
from adawise.worker.events import BatchServed, Event, FrameRejected, PartitionLost, ProducerMistaken
from adawise.worker.observer import LogObserver

if TYPE_CHECKING:
    from adawise.cli.replay.options import ReplayCommand


def replay(asked: ReplayCommand, *, order: Order = "timestamp", seed: int = 0) -> int:
    """Run the worker on a recording, or on what a topic holds now.

    It writes to a new folder, or goes on in the folder of the same replay.

    Args:
        asked: the options of the command.
        order: how the partitions of a recording interleave.
        seed: the seed of a random order.

    Returns:
        0, or 130 if it was stopped: the same command goes on where it was.

    Raises:
        SettingsError: the output is of something else, or what was asked for cannot be done.
        SourceError, BrokerUnavailable: the recording or the topic cannot be read.
        ChainError, StoreUnavailable: the output is damaged, or does not answer.
    """
    settings, output, recording = asked.settings, asked.output, asked.recording
    if asked.topic is not None:
        settings = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"topic": asked.topic})})
    if Path(output).resolve() == Path(settings.sink.root).resolve():
        raise SettingsError(f"-o {output} is sink.root, where the live worker writes; a replay needs a separate folder")
    store = open_store(output)
    earlier = claimed(store, output)  # before torch is loaded, which takes seconds
    forgotten: Forgotten = "skip" if asked.skip_forgotten else "fail"
    opened: AbstractContextManager[Whole] = (
        opened_topic(settings, asked.from_time, asked.until)
        if recording is None
        else opened_recording(recording, asked.from_time, asked.until, order=order, seed=seed, forgotten=forgotten)
    )
    with opened as whole:
        states = recorded_states(asked.state_of, whole) if asked.state_of else {}
        ranges, ends_streams = _ranges(whole, asked, states), whole.ends_streams
        if earlier is not None and earlier.topic == whole.topic:
            ends_streams = earlier.ends_streams
            ranges = earlier.part  # a recording, a topic and a root grow; the replay goes on within what it claimed
        batch_ends = _batch_ends(asked, whole, ranges)
        return _replay(settings, asked, whole, ranges, states, store, batch_ends, ends_streams=ends_streams)


def _batch_ends(asked: ReplayCommand, whole: Whole, ranges: Mapping[TopicPartition, Range]) -> BatchEnds | None:
    if asked.batches_of is None:
        return None
    ends, lacking = read_batch_ends(asked.batches_of, ranges, whole.identity)
    if lacking:
        structlog.get_logger("worker").warning(
            "batches_not_covered",
            partitions=[str(tp) for tp in lacking],
            note=f"{asked.batches_of} lacks their first batches; these end by batch.* and the timestamps",
        )
    return ends


def _replay(
    settings: Settings,
    asked: ReplayCommand,
    whole: Whole,
    ranges: Mapping[TopicPartition, Range],
    states: Mapping[TopicPartition, RecordedState],
    store: Store,
    batch_ends: BatchEnds | None,
    *,
    ends_streams: bool,
) -> int:
    from adawise.app.model import config_fingerprint, load_model
    from adawise.app.pairs import planned_pairs
    from adawise.app.worker import describe, make_worker
    from adawise.clip.classifier import digest

    log, output = structlog.get_logger("worker"), asked.output
    if asked.results_to in (whole.topic, settings.kafka.topic):
        raise SettingsError(
            f"--results-to {asked.results_to}: it is a topic whose messages are read as images; name another"
        )
    with stop_signals() as should_stop:
        model = load_model(settings.model, settings.decode)
        log.info("model_loaded", **describe(settings, model))
        fingerprints = model.classifier.fingerprint, config_fingerprint(settings, model)
        planned = None
        if asked.pairs_of is not None:
            planned, plan = planned_pairs(settings, model, asked.pairs_of, ranges, ends_streams=ends_streams)
            fingerprints = fingerprints[0], digest(f"{fingerprints[1]} {plan}")
        batches = "" if batch_ends is None else digest_of(batch_ends)
        ours = claim(store, output, _claim(whole, asked, ranges, states, batches, *fingerprints))
        _tell_differences(ours, whole, states, fingerprints)
        begin_chains(store, states, whole.identity, f"{socket.gethostname()}:{os.getpid()}")
        left = {tp: (max(begin, _head(store, tp, begin)), until) for tp, (begin, until) in ours.part.items()}
        total = sum(until - begin for begin, until in left.values())
        with progress("replayed", total, "messages") as bar:
            observer = _ReplayObserver(bar, left)
            worker = make_worker(
                settings,
                model,
                source=_source(whole.source, ours, asked.speed),
                root=output,
                owner=Owner(whole.identity.cluster_id, whole.topic, "", "replay"),
                dead_letters=NoDeadLetters(),
                observer=observer,
                should_stop=should_stop,
                ends_streams=ours.ends_streams,
                results_to=asked.results_to,
                partitions=whole.identity.partitions,
                pairs=None if planned is None else lambda _store, _name: planned,
                batch_ends=batch_ends,
            )
            worker.run()
            stopped = should_stop()
            if not stopped:
                observer.ended()
    print("\n".join(_summary(observer, ours, whole, output, stopped=stopped)))
    return INTERRUPTED if stopped else 0


def _claim(
    whole: Whole,
    asked: ReplayCommand,
    ranges: Mapping[TopicPartition, Range],
    states: Mapping[TopicPartition, RecordedState],
    batches: str,
    model_fingerprint: str,
    config_fingerprint: str,
) -> Claim:
    return Claim(
        topic=whole.topic,
        cluster_id=whole.identity.cluster_id,
        topic_id=whole.identity.topic_id,
        ranges={str(tp.partition): between for tp, between in ranges.items()},
        ends_streams=whole.ends_streams,
        states_of={str(tp.partition): recorded.name for tp, recorded in states.items()},
        streams=None if asked.streams is None else sorted(name.strip() for name in asked.streams.split(",")),
        model_fingerprint=model_fingerprint,
        config_fingerprint=config_fingerprint,
        batches=batches,
    )


def _ranges(
    whole: Whole, asked: ReplayCommand, states: Mapping[TopicPartition, RecordedState]
) -> dict[TopicPartition, Range]:
    ranges = dict(whole.part)
    if states:
        alone = asked.state_of is not None and asked.state_of.endswith(".parquet")
        begun = {tp: (recorded.low_water, max(recorded.footer.next, ranges[tp][1])) for tp, recorded in states.items()}
        ranges = begun if alone else {**ranges, **begun}
    return ranges


def _tell_differences(
    ours: Claim, whole: Whole, states: Mapping[TopicPartition, RecordedState], fingerprints: tuple[str, str]
) -> None:
    log = structlog.get_logger("worker")
    if not states and ours.part != whole.part:
        log.warning(
            "replay_continued", note="the part that its first run began is replayed; use a new folder for another part"
        )
    written_by = {(r.footer.model_fingerprint, r.footer.config_fingerprint) for r in states.values()}
    if written_by - {fingerprints}:
        note = "the states were written with other models or settings; streams that they do not fit start anew"
        log.warning("states_not_taken", note=note)


def _head(store: Store, tp: TopicPartition, begin: int) -> int:
    """Return the offset at which the chain of an output goes on; `begin` if there is none yet."""
    footer = newest(store, tp)
    return begin if footer is None else footer.next


def _source(source: Source, ours: Claim, speed: float | None) -> Source:
    wanted = Streams(None if ours.streams is None else ",".join(ours.streams))
    bounded = BoundedSource(source, ours.part, ends_streams=ours.ends_streams, wants=wanted.has)
    return bounded if speed is None else PacedSource(bounded, speed=speed)


def _summary(observer: _ReplayObserver, ours: Claim, whole: Whole, output: str, *, stopped: bool) -> list[str]:
    said = []
    if observer.images or observer.rejected:
        each = observer.passed / max(observer.images, 1)
        said.append(
            f"{observer.images} images served, {observer.rejected} rejected, {each:.2f} forwards per image: {output}"
        )
    elif not stopped:
        said.append(f"nothing was left to do: {output} has all of {whole.name}; for another strategy, use a new folder")
    if stopped:
        said.append("stopped before the end; the same command goes on from here")
    elif not ours.ends_streams:
        said.append("batches that are open at --until lack their later messages and are not written")
    return said


class _ReplayObserver(LogObserver):
    """An observer that counts for the bar and the summary, beside the log."""

    def __init__(self, bar: Progress, left: Mapping[TopicPartition, Range]) -> None:
        super().__init__()
        self._bar = bar
        self._left = left
        self._at = {tp: begin for tp, (begin, _) in left.items()}
        self.images = self.rejected = 0
        self.passed = 0.0

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
        """Advance the bar to its end: messages without images are done, too."""
        for tp, (_, until) in self._left.items():
            self._advance(tp, until)

    def _advance(self, tp: TopicPartition, offset: int) -> None:
        if offset > self._at[tp]:
            self._bar.advance(offset - self._at[tp])
            self._at[tp] = offset
