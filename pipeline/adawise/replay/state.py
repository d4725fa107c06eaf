"""Adaptation states of another root, from which a replay can go on exactly as their writer did.

Such a chain begins with a segment without rows, which has the states, what was pending, and the offset where that run
went on. As in every chain, what lies between the oldest pending offset and `next` and is not pending is a gap.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import uuid4

from adawise.errors import SettingsError, SourceError
from adawise.output.read.rows import read_traces
from adawise.ports import TopicIdentity
from adawise.publish.alerts import without_news
from adawise.records import Gap, TopicPartition
from adawise.replay.bounded import Whole
from adawise.settings.moments import NoMoment, parse_moment
from adawise.sink import claims, layout, schemas, segment
from adawise.sink.files import segment_names
from adawise.sink.layout import Lineage, SegmentName
from adawise.sink.owner import is_replay, read_owner
from adawise.sink.segment import SegmentFooter
from adawise.sink.walk import footer_of
from adawise.store.answers import AlreadyExists
from adawise.store.store import Store, open_store

_SEGMENT = re.compile(r"(?P<root>.+)/(?P<key>predictions/topic-[^/]+/partition-[0-9]{5,10}/[^/]+\.parquet)")
EXPECTED = "a segment ROOT/predictions/topic-T/partition-P/OFFSET.parquet, or ROOT@TIME"


@dataclass(frozen=True, slots=True)
class RecordedState:
    """The state of one partition that a segment of another root holds."""

    name: str
    footer: SegmentFooter

    @property
    def low_water(self) -> int:
        """The first offset that has to be read again."""
        return min(self.footer.pending, default=self.footer.next)


def recorded_states(state_of: str, whole: Whole) -> Mapping[TopicPartition, RecordedState]:
    """Return the states by partition: of one segment, or of all partitions' newest segments at a moment.

    Raises:
        SettingsError: there is no such segment, none was written by then, or it is of a topic of another name.
        ChainError: a segment is damaged, or is of another topic.
        SourceError: what is to be replayed does not have what comes next, or what was pending.
    """
    match = _SEGMENT.fullmatch(state_of)
    found = _of_segment(match["root"], match["key"]) if match else _at_moment(state_of, whole)
    for tp, recorded in found.items():
        footer = recorded.footer
        claims.check_identity(
            f"{recorded.name} beside {whole.name}",
            topic_id=footer.topic_id,
            partitions=footer.partitions,
            identity=whole.identity,
        )
        if footer.topic != whole.topic:
            raise SettingsError(
                f"{recorded.name} has states of topic {footer.topic!r}, but {whole.name} is of topic {whole.topic!r}; "
                "name a segment of that topic"
            )
        _expect_messages(recorded, *whole.bounds[tp], whole.name)
    return found


def root_of(state_of: str) -> str:
    """Return the root of the states that `recorded_states` has found."""
    match = _SEGMENT.fullmatch(state_of)
    return match["root"] if match else state_of.rpartition("@")[0]


def begin_chains(
    store: Store,
    recorded: Mapping[TopicPartition, RecordedState],
    identity: TopicIdentity,
    writer: str,
    *,
    has_prior: bool,
) -> None:
    """Begin the chains of an output with the recorded states. Those that have begun stay as they are.

    `has_prior`: the rows that follow have the columns of a class prior.
    """
    empty = schemas.as_stored(schemas.PREDICTIONS.empty_table(), has_prior=has_prior)
    now = datetime.now(UTC).isoformat()
    sink = claims.sink_id(store, created_at=now)
    for tp, state in recorded.items():
        low_water, footer = state.low_water, state.footer
        claims.origin(
            store, tp, claims.ChainOrigin(low_water, identity.cluster_id, identity.topic_id, identity.partitions)
        )
        seeded = replace(
            footer,
            sink=sink,
            cluster_id=identity.cluster_id,
            topic_id=identity.topic_id,
            partitions=identity.partitions,
            first=low_water,
            sequence=0,
            previous=None,
            attempt=uuid4().hex,
            writer=writer,
            created_at=now,
            gaps=_gaps(low_water, footer.next, footer.pending),
            alerts=without_news(footer.alerts),
            trace=schemas.BATCH_TRACE.empty_table(),
            states_of=state.name,
            lineage=Lineage(SegmentName(low_water)),
        )
        data = segment.encode(empty, seeded)
        with suppress(AlreadyExists):
            store.create(layout.segment_key(tp, SegmentName(low_water)), data)


def _of_segment(root: str, key: str) -> dict[TopicPartition, RecordedState]:
    named = layout.parse_key(key)
    data = open_store(root).get(key)
    if named is None or data is None:
        raise SettingsError(f"--state-of {root}/{key}: expected {EXPECTED}, but there is no such segment")
    return {named[0]: RecordedState(f"{root}/{key}", segment.read_footer(data, key))}


def _at_moment(state_of: str, whole: Whole) -> dict[TopicPartition, RecordedState]:
    root, at, text = state_of.rpartition("@")
    try:
        moment = parse_moment(text) if at and root else None
    except NoMoment as error:
        raise SettingsError(f"--state-of {state_of}: the moment after @: {error}") from error
    if moment is None:
        raise SettingsError(f"--state-of {state_of}: expected {EXPECTED}")
    store = open_store(root)
    if claims.read_sink_id(store) is None:
        raise SettingsError(f"--state-of {state_of}: there is no output of a worker in {root}; name its folder")
    if is_replay(store, read_owner(store)):
        return _by_cameras(store, root, moment, whole, state_of)
    found = {tp: newest for tp in whole.bounds if (newest := _newest_before(store, root, tp, moment))}
    if not found:
        raise SettingsError(
            f"--state-of {state_of}: expected a segment of topic {whole.topic!r} that was written by then, "
            "but there is none; name a later moment"
        )
    return found


def _by_cameras(
    store: Store, root: str, moment: datetime, whole: Whole, state_of: str
) -> dict[TopicPartition, RecordedState]:
    """Return the last states of a replay that include no batch after the moment, by the time of the cameras.

    A replay's segments were all written long after the images were taken. A batch's time is when its last image was
    taken, or else the broker's timestamp.
    """
    late: dict[TopicPartition, tuple[str, datetime, str]] = {}  # the first segment with a later batch, and that batch
    columns = ["topic", "partition", "segment", "time", "stream_id"]
    for rows in read_traces(root, since=moment + timedelta(microseconds=1), columns=columns).batches():
        for topic, partition, *batch in zip(*(column.to_pylist() for column in rows), strict=True):
            tp, (key, time, stream_id) = TopicPartition(topic, partition), batch
            late[tp] = min(late.get(tp, (key, time, stream_id)), (key, time, stream_id))
    found: dict[TopicPartition, RecordedState] = {}
    for tp in whole.bounds:
        keys = [layout.segment_key(tp, name) for name in segment_names(store, tp)]
        if keys := keys[: bisect_left(keys, late[tp][0])] if tp in late else keys:
            found[tp] = RecordedState(f"{root}/{keys[-1]}", footer_of(store, keys[-1]))
    if not found:
        begins = min((f"{time.isoformat()}, of camera {name!r}" for _, time, name in late.values()), default="no time")
        raise SettingsError(
            f"--state-of {state_of}: expected a segment of topic {whole.topic!r} with only images up to then, by "
            f"the cameras' time, since {root} is a replay's; but it begins at {begins}. Name a later moment"
        )
    return found


def _newest_before(store: Store, root: str, tp: TopicPartition, moment: datetime) -> RecordedState | None:
    """Return the last segment that was committed at the moment or before; None if there is none.

    A chain's segments follow each other in time, so it is found by bisection.
    """
    keys = [layout.segment_key(tp, name) for name in segment_names(store, tp)]
    end = bisect_right(keys, moment, key=lambda key: datetime.fromisoformat(footer_of(store, key).created_at))
    return RecordedState(f"{root}/{keys[end - 1]}", footer_of(store, keys[end - 1])) if end else None


def _expect_messages(recorded: RecordedState, start: int, end: int, name: str) -> None:
    footer = recorded.footer
    if recorded.low_water < start:
        missing = [offset for offset in footer.pending if offset < start]
        waits = f" (it waits for {len(missing)} messages before that, whose batches were open)" if missing else ""
        raise SourceError(
            f"{recorded.name} goes on at offset {recorded.low_water}{waits}, but {name} begins at offset {start} of "
            f"partition {footer.partition}. Name a later segment, or record from there."
        )
    if footer.next > end:
        raise SourceError(
            f"{recorded.name} goes on at offset {footer.next}, but {name} ends at offset {end} of partition "
            f"{footer.partition}. Name an earlier segment."
        )


def _gaps(first: int, until: int, pending: tuple[int, ...]) -> tuple[Gap, ...]:
    """Return the ranges of [first, until) that are not pending."""
    ends = [first - 1, *sorted(pending), until]
    between = ((before + 1, after) for before, after in pairwise(ends))
    return tuple(Gap(begin, end) for begin, end in between if begin < end)
