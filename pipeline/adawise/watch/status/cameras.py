"""One row for each camera and counts of rejects, computed from the newest segments of all partitions. Pure functions.

While a partition is behind, its cameras' images wait at the broker, so they must not count as silent. A camera's
silence is therefore measured up to the arrival of the oldest waiting message, and up to now only if none waits. For a
camera without an image in the segments that were read, the time of its last image comes from its state, by Kafka
timestamps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from adawise.adapt.last_seen import outline_in
from adawise.records import TopicPartition
from adawise.text import as_duration
from adawise.watch.row import STEP_S, STEPS
from adawise.watch.state import GONE_S, NOW_S, CameraFacts, Entered, StatePolicy, compared_from_s, counted, state
from adawise.watch.status.facts import STATES, CameraStatus, PartitionStatus, RejectStatus
from adawise.watch.status.root import ChainFacts
from adawise.watch.status.segments import SeenBatch, Sight

_BATCHES = 20 * STEPS  # the last batches, at most, from which a camera's curve of alpha is drawn
_TOP = 3  # classes in a row
_POLICY = StatePolicy()


@dataclass(slots=True)
class _CameraSights:
    """A camera over all segments that were read; segments before the window only give its last time and alpha."""

    sights: list[Sight]
    last_s: float | None
    alpha: float | None = None
    condition: int | None = None
    returns: int = 0


@dataclass(frozen=True, slots=True)
class _ChainWindow:
    """The time window for a chain's cameras, in seconds since the epoch; other fields are as in `CameraFacts`."""

    since_s: float
    now_s: float
    served_until_s: float
    failure: str


def cameras(
    chains: Iterable[ChainFacts], partitions: Iterable[PartitionStatus], *, since_s: float, now_s: float
) -> list[CameraStatus]:
    """Return all cameras that have a state or occur in the segments that were read, worst first, then by name.

    Args:
        chains: chains of the partitions.
        partitions: status of these partitions.
        since_s: start of the window, in seconds since the epoch.
        now_s: end of the window, in seconds since the epoch.

    Raises:
        ChainError: a state is damaged.
    """
    known = {TopicPartition(each.topic, each.partition): each for each in partitions}
    rows = [row for chain in chains for row in _of_chain(chain, known.get(chain.tp), since_s, now_s)]
    return sorted(rows, key=lambda row: (row.state.severity, row.stream_id, row.partition))


def _of_chain(
    chain: ChainFacts, partition: PartitionStatus | None, since_s: float, now_s: float
) -> Iterator[CameraStatus]:
    head = chain.head
    if head is None:
        return
    until_s, failure = now_s, ""
    if partition is not None and partition.lag:
        oldest_s = partition.lag_s  # a day or more means that a producer's clock is wrong
        until_s = head.created_s if oldest_s is None or oldest_s > GONE_S else now_s - oldest_s
    if partition is not None and partition.is_stalled:
        age = as_duration(now_s - head.created_s)
        failure = f"{partition.lag} messages of its partition wait, and the last segment is {age} old"
    window = _ChainWindow(since_s, now_s, until_s, failure)
    by_stream: dict[str, _CameraSights] = {}
    for facts in chain.segments:
        for stream, sight in facts.sights.items():
            if stream is not None:
                camera = by_stream.setdefault(stream, _CameraSights([], None))
                if facts.created_s >= since_s:
                    camera.sights.append(sight)
                camera.last_s = max(camera.last_s or 0.0, sight.last_s)
                camera.alpha = sight.batches[-1].alpha if sight.batches else camera.alpha
    for stream, data in head.states.items():
        outline = outline_in(data)
        if stream not in by_stream:
            last_seen = outline.last_seen
            by_stream[stream] = _CameraSights([], None if last_seen is None else last_seen.last_seen_s(head.created_s))
        if outline.condition is not None:
            by_stream[stream].condition, by_stream[stream].returns = (
                outline.condition.number,
                outline.condition.visits - 1,
            )
    for stream, camera in by_stream.items():
        yield _row(chain.tp, stream, camera, window)


def _row(tp: TopicPartition, stream: str, camera: _CameraSights, window: _ChainWindow) -> CameraStatus:
    batches = [batch for sight in camera.sights for batch in sight.batches]
    images = sum(sight.images for sight in camera.sights)
    reasons, labels, off_list = Counter[str](), Counter[str](), Counter[str]()
    shortlist = next((sight.shortlist for sight in reversed(camera.sights) if sight.batches), None)
    listed = 0
    for sight in camera.sights:
        for reason, count in sight.rejected.items():
            reasons[reason] += count
        for label, count in sight.labels.items():  # `Counter.update` takes five times as long for few labels
            labels[label] += count
        if shortlist is not None and (under := sight.listed.get(shortlist)) is not None:
            listed += under.images
            for label, count in under.off_list.items():
                off_list[label] += count
    compared = sum(sight.compared for sight in camera.sights)
    reset_s, reset = max(((s.changed_s, s.reset) for s in camera.sights if s.changed_s is not None), default=(None, ""))
    forwards = sum(sight.forwards for sight in camera.sights)
    span_s = batches[-1].at_s - batches[0].at_s if len(batches) > 1 else 0.0
    sent = sum(batch.images for batch in batches[1:])
    steps: dict[int, list[float]] = {}
    for batch in batches[-_BATCHES:]:
        steps.setdefault(int(batch.at_s / STEP_S), []).append(batch.alpha)
    steps = dict(list(steps.items())[-STEPS:])
    now_s, entered = window.now_s, _entered(batches)
    found, why = state(
        CameraFacts(
            now_s=now_s,
            last_seen_s=camera.last_s,
            served_until_s=window.served_until_s,
            pause_s=span_s / (len(batches) - 1) if span_s > 0 else None,
            images=images,
            rejected=reasons.total(),
            over_s=now_s - window.since_s,
            reason=", ".join(reason for reason, _ in reasons.most_common()),
            failure=window.failure,
            alpha_now=_level(batches, now_s - NOW_S, now_s),
            alpha_before=_level(batches, compared_from_s(now_s, entered), now_s - NOW_S),
            entered=entered,
            reset=reset,
            reset_s=-math.inf if reset_s is None else reset_s,
        ),
        _POLICY,
    )
    return CameraStatus(
        stream_id=stream,
        topic=tp.topic,
        partition=tp.partition,
        state=found,
        why=why,
        last_seen=None if camera.last_s is None else moment(camera.last_s),
        age_s=None if camera.last_s is None else max(0.0, now_s - camera.last_s),
        alpha=camera.alpha,
        alphas=[sum(alphas) / len(alphas) for alphas in steps.values()],
        alpha_steps=list(steps),
        condition=camera.condition,
        returns=camera.returns,
        images=images,
        images_per_s=sent / span_s if span_s > 0 else None,
        rejected=reasons.total(),
        reasons=dict(reasons.most_common()),
        forward_equivalents=forwards / images if images else None,
        agreement=sum(sight.agree for sight in camera.sights) / compared if compared else None,
        top=[(label, count / images) for label, count in labels.most_common(_TOP)],
        changed=None if reset_s is None else moment(reset_s),
        listed=listed,
        off_list=dict(off_list.most_common()),
    )


def _entered(batches: Sequence[SeenBatch]) -> Entered | None:
    """Return the last change of the camera's condition; None if its batches show none."""
    numbered = ((batch.condition, batch) for batch in reversed(batches) if batch.condition is not None)
    for (number, batch), (before, _) in pairwise(numbered):
        if number != before:
            return Entered(number, bool(batch.returned), batch.at_s)
    return None


def _level(batches: Sequence[SeenBatch], after_s: float, until_s: float) -> float | None:
    """Return the mean alpha over the images served in (after_s, until_s]; None without images."""
    within = [batch for batch in batches if after_s < batch.at_s <= until_s]
    images = sum(batch.images for batch in within)
    return sum(batch.alpha * batch.images for batch in within) / images if images else None


def rejects(chains: Iterable[ChainFacts], *, since_s: float) -> list[RejectStatus]:
    """Return the images rejected since `since_s` (seconds since the epoch) by reason, the most frequent first."""
    images, last, streams = Counter[str](), dict[str, float](), dict[str, set[str | None]]()
    for facts in (each for chain in chains for each in chain.segments if each.created_s >= since_s):
        for stream, sight in facts.sights.items():
            for reason, count in sight.rejected.items():
                images[reason] += count
                streams.setdefault(reason, set()).add(stream)
                last[reason] = max(last.get(reason, 0.0), facts.created_s)
    return [
        RejectStatus(reason, count, len(streams[reason]), moment(last[reason]))
        for reason, count in images.most_common()
    ]


def counts(rows: Iterable[CameraStatus]) -> dict[str, int]:
    """Return the number of cameras in each state; every state that a fleet's camera can have is a key."""
    return {str(each): count for each, count in counted((row.state for row in rows), STATES).items()}


def moment(seconds: float) -> str:
    """Format seconds since the epoch as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
