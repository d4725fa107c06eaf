"""The plan of a replay in shards: which cameras each shard serves. It is made once, and every shard keeps to it.

A plan names what is replayed, so that shards that begin on different days read the same part of a recording that grows.
It does not name the method: the first shard that begins records that (`shards`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

from adawise.decode.share import Owners
from adawise.errors import SettingsError
from adawise.ports import TopicIdentity
from adawise.recording.census import CameraCount, PartitionCensus, check_recording, take_census
from adawise.recording.format import MANIFEST, read_manifest
from adawise.recording.recorder import Streams
from adawise.recording.source import RecordingSource
from adawise.records import TopicPartition
from adawise.replay.assign import Unit, assign, loads
from adawise.replay.bounded import Range, whole_of
from adawise.sink import layout
from adawise.sink.files import segment_keys
from adawise.sink.owner import read_owner
from adawise.store.answers import AlreadyExists
from adawise.store.documents import MOST_BYTES, Count, Document, Text, parse, write_document
from adawise.store.store import Store, open_store
from adawise.text import counted

_BYTES_A_FRAME = 1 << 18  # of a message that cost as much as an image's forwards: a picture of 256 KiB costs 2
_NEW_FOLDER = "use a new folder"

Number = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,9})$")]
Cost = Annotated[float, Field(gt=0.0, lt=1e300)]
Names = Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=249)]], Field(min_length=1)]


class PlannedShard(Document):
    """The messages that a shard serves, and what they cost: an image is 1, and 256 KiB of messages are 1."""

    messages: Count
    cost: Cost


class Dearest(Document):
    """The camera that costs most; `camera` is None for the messages of a partition that name none."""

    partition: Count
    camera: Text | None
    cost: Cost


class PlannedPartition(Document):
    """The offsets of [begin, until) of a partition, and the shards of its cameras.

    `files` is the hash of the files that hold them (`recording.census`), `rest` the shard of messages and rows without
    a camera.
    """

    begin: Count
    until: Count
    files: Text
    stored_bytes: Count
    rest: Count
    cameras: dict[Number, Names]  # by the number of the shard


class ReplayPlan(Document):
    """The plan of a replay in shards, which are numbered from 0."""

    model_config = ConfigDict(extra="forbid")  # a field of a later version may change what a shard serves

    layout: Literal[1] = 1
    topic: Text
    cluster_id: Text
    topic_id: Text
    from_time: Text | None
    until: Text | None
    streams: list[Text] | None
    skip_forgotten: bool
    ends_streams: bool
    nameless: Count  # messages that name no camera in key or headers
    dearest: Dearest
    shards: Annotated[list[PlannedShard], Field(min_length=1, max_length=100_000)]
    partitions: Annotated[dict[Number, PlannedPartition], Field(min_length=1)]

    @field_validator("topic")
    @classmethod
    def _is_topic(cls, value: str) -> str:
        layout.folder(layout.PREDICTIONS, TopicPartition(value, 0))
        return value

    @field_validator("partitions")
    @classmethod
    def _agree(cls, value: dict[str, PlannedPartition], info: ValidationInfo) -> dict[str, PlannedPartition]:
        shards = len(info.data.get("shards", ()))
        for number, each in value.items():
            names = [name for listed in each.cameras.values() for name in listed]
            if len(set(names)) < len(names) or each.begin > each.until:
                raise ValueError(f"partition {number} has a camera twice, or ends before it begins")
            if max(each.rest, *map(int, each.cameras)) >= shards:
                raise ValueError(f"partition {number} names a shard that there is not")
        return value

    @property
    def parts(self) -> dict[TopicPartition, Range]:
        """The offsets by partition."""
        return {self._tp(number): (each.begin, each.until) for number, each in self.partitions.items()}

    @property
    def owners(self) -> dict[TopicPartition, Owners]:
        """The shards of each partition's cameras."""
        return {self._tp(number): _owners(each) for number, each in self.partitions.items()}

    @property
    def cameras(self) -> int:
        """The number of cameras that it names; one in two partitions counts twice."""
        return sum(len(names) for each in self.partitions.values() for names in each.cameras.values())

    @property
    def stored_bytes(self) -> int:
        """Bytes of all files."""
        return sum(each.stored_bytes for each in self.partitions.values())

    @property
    def read_bytes(self) -> list[int]:
        """Bytes that each shard reads."""
        found = [0] * len(self.shards)
        for each in self.partitions.values():
            for shard in _owners(each).readers:
                found[shard] += each.stored_bytes
        return found

    @property
    def files(self) -> dict[TopicPartition, str]:
        """The hash of the files of each partition."""
        return {self._tp(number): each.files for number, each in self.partitions.items()}

    def _tp(self, number: str) -> TopicPartition:
        return TopicPartition(self.topic, int(number))


def _owners(planned: PlannedPartition) -> Owners:
    cameras = {name: int(shard) for shard, names in planned.cameras.items() for name in names}
    return Owners(cameras, tuple(sorted({*cameras.values(), planned.rest})), planned.rest)


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """The plan in a folder. `digest` is of its bytes, 16 hex digits; `is_new` is True if it was made just now."""

    output: str
    plan: ReplayPlan
    digest: str
    is_new: bool = False

    def expect_recording(
        self, name: str, topic: str, identity: TopicIdentity, parts: Mapping[TopicPartition, Range]
    ) -> None:
        """Check that a recording is the one of the plan, in these parts.

        Raises:
            SettingsError: it is of another topic.
            SourceError: its files are others than those that were there.
            StoreUnavailable: the store does not answer.
        """
        plan = self.plan
        if (plan.topic, plan.cluster_id, plan.topic_id) != (topic, identity.cluster_id, identity.topic_id):
            raise SettingsError(
                f"{name} is of topic {topic!r} with the id {identity.topic_id}, but the plan in {self.output} was made "
                f"for topic {plan.topic!r} with the id {plan.topic_id}; name the recording of the plan"
            )
        check_recording(name, parts, plan.files)


def read_plan(output: str) -> StoredPlan | None:
    """Return the plan in a folder; None if there is none.

    Raises:
        ChainError: it cannot be read.
        StoreUnavailable: the store does not answer.
    """
    return plan_of(open_store(output), output)


def plan_of(store: Store, output: str) -> StoredPlan | None:
    """Return the plan in the store of a folder, as `read_plan`."""
    data = store.get(layout.PLAN)
    if data is None:
        return None
    return StoredPlan(output, parse(ReplayPlan, store, layout.PLAN, data), sha256(data).hexdigest()[:16])


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A request for a plan.

    Attributes:
        recording: the folder or URL of the recording.
        output: a new folder or URL, for the plan and the output of the shards.
        shards: their number.
        from_time: the moment, by the broker's timestamps, before which messages are left out.
        until: the moment from which messages are left out.
        streams: patterns of the streams to replay; None for all.
        skip_forgotten: leave out recorded messages without images.
        live_root: the folder or URL where workers write (`sink.root`), which can hold no plan; None if it is not known.
    """

    recording: str
    output: str
    shards: int
    from_time: datetime | None = None
    until: datetime | None = None
    streams: str | None = None
    skip_forgotten: bool = False
    live_root: str | None = None


def plan_replay(request: PlanRequest) -> StoredPlan:
    """Divide the cameras of a recording between shards, and create the plan. No image is read.

    A plan that the same request has made before is returned as it is, also if the recording has grown.

    Raises:
        SettingsError: the folder holds something else, or there are fewer cameras than shards.
        SourceError: the recording cannot be read, or is not the one of the plan.
        ChainError, StoreUnavailable: the output is damaged, or does not answer.
    """
    store = open_store(request.output)
    if (before := read_plan(request.output)) is not None:
        return _same(request, before)
    _expect_new(store, request)
    planned = _planned(request)
    try:
        data = write_document(ReplayPlan, planned.model_dump())
    except ValueError as error:
        raise SettingsError(
            f"--plan {request.shards}: the plan of {planned.cameras} cameras cannot be stored ({error}); choose some "
            f"of them with --streams, so that it has at most {MOST_BYTES} bytes"
        ) from error
    try:
        store.create(layout.PLAN, data)
    except AlreadyExists:  # by another process, a moment ago
        stored = read_plan(request.output)
        assert stored is not None
        return _same(request, stored)
    return StoredPlan(request.output, planned, sha256(data).hexdigest()[:16], is_new=True)


def _same(request: PlanRequest, stored: StoredPlan) -> StoredPlan:
    plan = stored.plan
    requested = (request.shards, *_choice(request))
    if requested != (len(plan.shards), plan.from_time, plan.until, plan.streams, plan.skip_forgotten):
        relative = " (a time such as 6h is another moment at each call)" if plan.from_time or plan.until else ""
        raise SettingsError(
            f"-o {request.output} holds the plan of {counted(len(plan.shards), 'shard')}, with other options"
            f"{relative}; {_NEW_FOLDER}"
        )
    recording = request.recording
    manifest = read_manifest(open_store(recording), recording, "Name the recording of the plan.")
    stored.expect_recording(recording, manifest.topic, manifest.identity, plan.parts)
    return stored


def _choice(request: PlanRequest) -> tuple[str | None, str | None, list[str] | None, bool]:
    since, until = (None if at is None else at.isoformat() for at in (request.from_time, request.until))
    return since, until, stream_patterns(request.streams), request.skip_forgotten


def stream_patterns(streams: str | None) -> list[str] | None:
    """Return the patterns of streams that commas separate, sorted; None for all streams."""
    return None if streams is None else sorted(name.strip() for name in streams.split(","))


def _expect_new(store: Store, request: PlanRequest) -> None:
    owner, output = read_owner(store), request.output
    if request.live_root is not None and Path(output).resolve() == Path(request.live_root).resolve():
        raise SettingsError(f"-o {output} is sink.root, where the live worker writes; {_NEW_FOLDER}")
    if store.get(MANIFEST) is not None:
        raise SettingsError(f"-o {output} is a recording, so that it cannot hold a plan; {_NEW_FOLDER}")
    if owner is not None or segment_keys(store):
        whose = "a worker or a replay" if owner is None else str(owner)
        raise SettingsError(f"-o {output} belongs to {whose}, so that it cannot hold a plan; {_NEW_FOLDER}")


def _planned(request: PlanRequest) -> ReplayPlan:
    forgotten: Literal["skip", "fail"] = "skip" if request.skip_forgotten else "fail"
    source = RecordingSource(request.recording, order="timestamp", seed=0, max_poll_records=1, forgotten=forgotten)
    with closing(source):
        whole = whole_of(request.recording, source, source.topic, request.from_time, request.until)
    parts = {tp: part for tp, part in whole.part.items() if part[0] < part[1]}
    census = take_census(request.recording, parts, forgotten)
    if request.streams is not None:
        wanted = Streams(request.streams)
        for count in census.values():
            count.cameras = {name: each for name, each in count.cameras.items() if wanted.has_stream(name)}
            count.nameless = CameraCount()  # a replay of some streams leaves them out
    units, messages = _units(census)
    if request.shards > len(units):
        raise SettingsError(
            f"--plan {request.shards}: {request.recording} has {counted(len(units), 'camera')} to divide; give at "
            f"most {len(units)}"
            if units
            else f"{request.recording} has no messages to plan for; name another recording, or another part of it"
        )
    chosen = assign(units, request.shards, {tp.partition: count.stored_bytes for tp, count in census.items()})
    costs, of_shard = loads(units, chosen, request.shards), [0] * request.shards
    for number, shard in zip(messages, chosen, strict=True):
        of_shard[shard] += number
    dearest = max(units, key=lambda unit: unit.cost)
    from_time, until, streams, skip_forgotten = _choice(request)
    return ReplayPlan(
        topic=whole.topic,
        cluster_id=whole.identity.cluster_id,
        topic_id=whole.identity.topic_id,
        from_time=from_time,
        until=until,
        streams=streams,
        skip_forgotten=skip_forgotten,
        ends_streams=whole.ends_streams,
        nameless=sum(count.nameless.frames for count in census.values()),
        dearest=Dearest(partition=dearest.partition, camera=dearest.camera, cost=dearest.cost),
        shards=[PlannedShard(messages=n, cost=cost) for n, cost in zip(of_shard, costs, strict=True)],
        partitions=_partitions(parts, census, units, chosen, costs),
    )


def _units(census: Mapping[TopicPartition, PartitionCensus]) -> tuple[list[Unit], list[int]]:
    """Return the units to divide, and the number of messages of each."""
    found: list[tuple[Unit, int]] = []
    for tp, count in census.items():
        nameless = [(None, count.nameless)] if count.nameless.frames else []
        for name, each in (*count.cameras.items(), *nameless):
            found.append((Unit(tp.partition, name, each.frames + each.size_bytes / _BYTES_A_FRAME), each.frames))
    return [unit for unit, _ in found], [frames for _, frames in found]


def _partitions(
    parts: Mapping[TopicPartition, Range],
    census: Mapping[TopicPartition, PartitionCensus],
    units: Sequence[Unit],
    chosen: Sequence[int],
    costs: Sequence[float],
) -> dict[str, PlannedPartition]:
    cameras: dict[int, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    within: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))  # the cost of a partition's readers
    nameless: dict[int, int] = {}
    for unit, shard in zip(units, chosen, strict=True):
        within[unit.partition][shard] += unit.cost
        if unit.camera is None:
            nameless[unit.partition] = shard
        else:
            cameras[unit.partition][shard].append(unit.camera)
    found = {}
    for tp, (begin, until) in parts.items():
        number, readers = tp.partition, within[tp.partition]
        if number in nameless:
            rest = nameless[number]
        elif readers:  # what has no camera is little, and the partition is read there anyway
            rest = max(sorted(readers), key=readers.__getitem__)
        else:
            rest = costs.index(min(costs))
        found[str(number)] = PlannedPartition(
            begin=begin,
            until=until,
            files=census[tp].digest,
            stored_bytes=census[tp].stored_bytes,
            rest=rest,
            cameras={str(shard): sorted(names) for shard, names in sorted(cameras[number].items())},
        )
    return found
