"""From the newest segments of all partitions to one row for each camera, and counts of what was rejected. Pure.

Whether a camera is silent is a matter of its partition's time: while that is behind, images wait at the broker, and the
camera is none the quieter for it. So its silence is measured up to what its partition has served, and up to now only
where nothing waits. A camera without an image in the window was last heard as its state says, by the partition's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from adawise.adapt.heard import condition_in
from adawise.live.row import REJECTED_SHARE, SILENT_PAUSES, STEP_S, STEPS, CameraState
from adawise.records import TopicPartition
from adawise.status.facts import STATES, CameraStatus, RejectStatus
from adawise.status.root import ChainFacts
from adawise.status.segments import Sight

_BATCHES = 20 * STEPS
_TOP = 3
_SILENT_S = 60.0  # the least
_UNKNOWN_PAUSE_S = 360.0  # of a camera with one batch in the window or none: silent after an hour
_GONE_S = 86_400.0
_CHANGED_S = 600.0


@dataclass(slots=True)
class _Seen:
    """A camera over all segments that were read; of those before the window only when it was seen, and its alpha."""

    sights: list[Sight]
    last_s: float | None
    alpha: float | None = None
    condition: int | None = None
    returns: int = 0


def cameras(
    chains: Iterable[ChainFacts], *, since_s: float, now_s: float, behind: Container[TopicPartition]
) -> list[CameraStatus]:
    """Every camera that has a state, or an image in the window from `since_s` on: the troubled first, then by name.

    Times are seconds since the epoch. In the partitions that are `behind`, messages wait that nobody has served.

    Raises ChainError for a damaged state.
    """
    rows = [row for chain in chains for row in _of_chain(chain, since_s, now_s, waits=chain.tp in behind)]
    order = list(STATES)
    return sorted(rows, key=lambda row: (order.index(row.state), row.stream_id, row.partition))


def _of_chain(chain: ChainFacts, since_s: float, now_s: float, *, waits: bool) -> Iterator[CameraStatus]:
    head = chain.head
    if head is None:
        return
    seen: dict[str, _Seen] = {}
    for facts in chain.segments:
        for stream, sight in facts.sights.items():
            if stream is not None:
                camera = seen.setdefault(stream, _Seen([], None))
                if facts.created_s >= since_s:
                    camera.sights.append(sight)
                camera.last_s = max(camera.last_s or 0.0, sight.last_s)
                camera.alpha = sight.batches[-1][1] if sight.batches else camera.alpha
    told = {stream: condition_in(data) for stream, data in head.states.items()}
    at_ms = {stream: heard.at_ms for stream, (heard, _, _) in told.items() if heard is not None}
    newest_ms = max(at_ms.values(), default=0)
    for stream, (_, condition, returns) in told.items():
        if stream not in seen:
            last_s = head.created_s - (newest_ms - at_ms[stream]) / 1e3 if stream in at_ms else None
            seen[stream] = _Seen([], last_s)
        seen[stream].condition, seen[stream].returns = condition, returns
    until_s = head.created_s if waits else now_s
    for stream, camera in seen.items():
        yield _row(chain, stream, camera, until_s, now_s)


def _row(chain: ChainFacts, stream: str, camera: _Seen, until_s: float, now_s: float) -> CameraStatus:
    batches = [batch for sight in camera.sights for batch in sight.batches]
    images = sum(sight.images for sight in camera.sights)
    reasons, labels = Counter[str](), Counter[str]()
    for sight in camera.sights:
        for reason, count in sight.rejected.items():
            reasons[reason] += count
        for label, count in sight.labels.items():  # not `update`, which takes five times as long for a few
            labels[label] += count
    compared = sum(sight.compared for sight in camera.sights)
    changes = [sight.changed_s for sight in camera.sights if sight.changed_s is not None]
    forwards = sum(sight.forwards for sight in camera.sights)
    span_s = batches[-1][0] - batches[0][0] if len(batches) > 1 else 0.0
    sent = sum(count for _, _, count in batches[1:])
    pause_s = span_s / (len(batches) - 1) if span_s > 0 else _UNKNOWN_PAUSE_S
    steps: dict[int, list[float]] = {}
    for at_s, alpha, _ in batches[-_BATCHES:]:
        steps.setdefault(int(at_s / STEP_S), []).append(alpha)
    steps = dict(list(steps.items())[-STEPS:])
    silence_s = None if camera.last_s is None else until_s - camera.last_s
    return CameraStatus(
        stream_id=stream,
        topic=chain.tp.topic,
        partition=chain.tp.partition,
        state=_state(images, reasons.total(), silence_s, pause_s, now_s - max(changes) if changes else None),
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
        changed=moment(max(changes)) if changes else None,
    )


def _state(images: int, rejected: int, silence_s: float | None, pause_s: float, changed_s: float | None) -> CameraState:
    if silence_s is not None and silence_s > _GONE_S:
        return CameraState.GONE
    if silence_s is None or silence_s > max(_SILENT_S, SILENT_PAUSES * pause_s):
        return CameraState.SILENT
    if rejected and rejected >= REJECTED_SHARE * (images + rejected):
        return CameraState.REJECTED
    return CameraState.CHANGED if changed_s is not None and changed_s < _CHANGED_S else CameraState.OK


def rejects(chains: Iterable[ChainFacts], *, since_s: float) -> list[RejectStatus]:
    """What was rejected in the window from `since_s` on, by reason, the most first."""
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


def counts(rows: Sequence[CameraStatus]) -> dict[str, int]:
    """How many cameras are in which state; every state is named."""
    found = Counter(row.state for row in rows)
    return {state: found[state] for state in STATES}


def moment(seconds: float) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
